"""A cell of a grid is one ordinary run of the trainer; its result is what the tables are made of."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from convit.errors import InputError
from convit.train import TrainConfig
from convit.train.evaluation import best_record

Label = str | int | float
RESULT = "result.json"
"""The file in a run folder that says that the cell is complete."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One run to make."""

    name: str
    """Its folder below ``runs/``."""
    labels: Mapping[str, Label]
    """What distinguishes it in tables, such as ``{"variant": "twin", "fraction": 0.1}``; not its seed."""
    config: TrainConfig
    record: bool = False
    """Whether each epoch notes how far every head looks."""
    masks: tuple[int, ...] | None = None
    """Whether accuracy is measured with parts switched off, too, and of how many first layers each time."""

    @property
    def seed(self) -> int:
        """That of its run."""
        return self.config.run.seed

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        masks = None if self.masks is None else list(self.masks)
        values = {"name": self.name, "labels": dict(self.labels), "record": self.record, "masks": masks}
        return values | {"config": self.config.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`."""
        return cls(
            name=values["name"],
            labels=values["labels"],
            config=TrainConfig.from_dict(values["config"]),
            record=values["record"],
            masks=None if values["masks"] is None else tuple(values["masks"]),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What came out of a cell."""

    name: str
    labels: Mapping[str, Label]
    seed: int
    part: str
    """``"test"``, or ``"val"`` for data without a test part."""
    images: int
    top1: float
    """In percent, of the best model on the images of ``part``, as all that follows but ``val_top1``."""
    top5: float
    loss: float
    """Mean cross-entropy, in nats."""
    val_top1: float
    """That by which the best epoch was chosen."""
    best_epoch: int
    epochs: int
    seconds: float
    """Of all training steps."""
    parameters: int
    flops: int
    """Multiply-adds for one image."""
    measured: Mapping[str, float]
    """Top-1 in percent with parts switched off, by what is."""
    asked: Mapping[str, Any]
    """The cell's :meth:`Cell.to_dict`."""
    config: Mapping[str, Any]
    """The options of the run with nothing left open."""
    history: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    """A record for each epoch, those of ``metrics.jsonl``."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; without the history, which is in the run folder."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "history"}


def read_history(run: Path) -> tuple[Mapping[str, Any], ...]:
    """A record for each epoch of a run folder."""
    return tuple(json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())


def result_of(cell: Cell, run: Path, facts: Mapping[str, Any]) -> Result:
    """The result of a cell whose run is complete; ``facts`` are its fields that are not in the run's files."""
    evaluation = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    history = read_history(run)
    best = best_record([dict(record) for record in history])
    return Result(
        name=cell.name,
        labels=cell.labels,
        seed=cell.seed,
        **{key: evaluation[key] for key in ("part", "images", "top1", "top5", "loss")},
        val_top1=best["val_top1"],
        best_epoch=best["epoch"],
        epochs=len(history),
        seconds=round(sum(record["seconds"] for record in history), 3),
        asked=cell.to_dict(),
        **facts,
    )


def read_result(run: Path) -> Result:
    """What a worker wrote into a run folder."""
    path = run / RESULT
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Result(**values, history=read_history(run))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: not readable ({error}); delete {run} to make that run again") from error
