"""A cell of a grid, and what came out of it: read from its run folder."""

import functools
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from convit.classifier_config import read_config
from convit.errors import InputError, one_line
from convit.experiments.rivals import RIVALS
from convit.files import parse_json, read, write_json
from convit.models import create_model
from convit.models.variants import multiply_adds_of
from convit.training.evaluation import best_record
from convit.training.options import Asked
from convit.training.run_folder import RunFolder

T = TypeVar("T")
Label = str | int | float


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One run to make."""

    name: str
    """Its folder below ``runs/``."""
    labels: Mapping[str, Label]
    """What distinguishes it in tables, such as ``{"variant": "twin", "fraction": 0.1}``; not its seed."""
    asked: Asked
    """The options of its run, as in a file for ``convit train --config``."""
    rival: str | None = None
    """The name of what is trained in place of the ConViT (:data:`convit.experiments.rivals.RIVALS`), if it is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What came out of a cell."""

    name: str
    labels: Mapping[str, Label]
    seed: int
    split: str
    """``"test"``, or ``"val"`` for data without a test split."""
    images: int
    top1: float
    """In percent, of the best model on the images of ``split``, as all that follows but ``val_top1``."""
    top5: float | None = None
    """None with five classes or fewer, where it would always be 100."""
    loss: float
    """Mean cross-entropy, in nats."""
    val_top1: float
    """That by which the best epoch was chosen."""
    best_epoch: int
    epochs: int
    shown: int
    """Images, in all training steps."""
    seconds: float
    """Of all training steps."""
    parameters: int
    flops: int
    """Multiply-adds for one image."""
    measured: Mapping[str, float] = field(default_factory=dict)
    """What else the study measures, such as top-1 in percent with parts switched off."""
    config: Mapping[str, Any]
    """The options of the run with nothing left open."""
    history: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    """A record for each epoch, those of ``metrics.jsonl``."""
    folder: Path = Path()
    """Its run folder."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; without what the run folder has."""
        left_out = ("history", "folder", *(("top5",) if self.top5 is None else ()))
        return {own.name: getattr(self, own.name) for own in fields(self) if own.name not in left_out}


def read_result(cell: Cell, path: Path) -> Result:
    """The result of a cell whose run, in the folder ``path``, is complete.

    Raises:
        InputError: a file of the run is damaged.
    """
    run = RunFolder(path)
    try:
        evaluation = parse_json(read(path / "evaluation.json"))
        history, model = run.read_history(), read_config(path)
        best = best_record(history)
        args = json.dumps({"num_classes": len(model.class_names), **model.model_args})
        parameters, flops = _cost(model.model_name, model.preprocess.image_size, args)
        return Result(
            name=cell.name,
            labels=cell.labels,
            seed=cell.asked.seed,
            **{key: evaluation[key] for key in ("split", "images", "top1", "loss")},
            top5=evaluation.get("top5"),
            val_top1=best["val_top1"],
            best_epoch=best["epoch"],
            epochs=len(history),
            shown=sum(record["images"] for record in history),
            seconds=round(sum(record["seconds"] for record in history), 3),
            parameters=parameters,
            flops=flops,
            config=run.read_options().to_dict(),
            history=tuple(history),
            folder=path,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not readable ({one_line(error)}); delete it to make that run again") from error


@functools.cache
def _cost(name: str, size: tuple[int, int], args: str) -> tuple[int, int]:
    """Parameters, and multiply-adds for one image, of a model with keywords that are JSON."""
    other = RIVALS[name].other if name in RIVALS else None
    model = (create_model if other is None else other.make)(name, device="meta", **json.loads(args))
    return sum(parameter.numel() for parameter in model.parameters()), multiply_adds_of(model, size)


def kept(file: Path, wanted: Iterable[str], measure: Callable[[list[str]], Mapping[str, T]]) -> dict[str, T]:
    """Values by name; a JSON file keeps them, and ``measure`` gives those that are not in it yet."""
    known: dict[str, T] = {}
    if file.is_file():
        try:
            known = dict(parse_json(read(file)))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{file}: not readable ({one_line(error)}); delete it to measure again") from error
    if missing := [name for name in wanted if name not in known]:
        known |= measure(missing)
        write_json(file, known)
    return known
