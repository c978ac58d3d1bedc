"""What can be set about an experiment, and what is decided where nothing is."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from convit.choices import Device, RecipeName
from convit.classifier import WEIGHTS
from convit.data import open_source, some_classes
from convit.errors import InputError
from convit.experiments.cells import Cell, Label
from convit.experiments.variants import Variant
from convit.models import create_model
from convit.train import AugmentConfig, DataConfig, DistillConfig, ModelConfig, OptimConfig, RunConfig, TrainConfig
from convit.train.config import VAL_FRACTION
from convit.train.plan import make_plan, split


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """An experiment with nothing left open but what its recipe decides for each run."""

    data: str
    models: tuple[str, ...]
    """Names of the models; every variant is made of each."""
    seeds: tuple[int, ...] = (0,)
    fractions: tuple[float, ...] = (1.0,)
    """Parts of each class to learn from."""
    strengths: tuple[float, ...] = ()
    """Locality strengths to try."""
    layers: tuple[int, ...] = ()
    """Numbers of GPSA layers to try, or of first layers to mask."""
    rows: tuple[str, ...] = ()
    """Rows of Table 3 and ``psa``, or of small-data."""
    epochs: int | None = None
    """Of all the data; of a fraction f 1 / f times as many."""
    batch_size: int | None = None
    lr: float | None = None
    recipe: RecipeName | None = None
    image_size: tuple[int, ...] | None = None
    classes: int | None = None
    val_fraction: float = VAL_FRACTION
    """Of data without a validation part."""
    data_root: Path | None = None
    skip_bad: bool = False
    workers: int | None = None
    device: Device = "auto"
    teacher: str | None = None
    """What distilled models learn from: a timm model by name, and its weights or a run folder."""
    teacher_weights: Path | None = None

    def shared(self) -> dict[str, Any]:
        """What all results of one folder have in common; the grid may grow."""
        names = ("epochs", "batch_size", "lr", "recipe", "image_size", "classes", "val_fraction", "skip_bad", "device")
        teacher = {"teacher": self.teacher, "teacher_weights": _digest(self.teacher_weights)}
        return {name: getattr(self, name) for name in names} | teacher

    def config(
        self,
        model: str | None,
        seed: int,
        fraction: float = 1.0,
        changes: Mapping[str, Any] | None = None,
        *,
        optim: Mapping[str, Any] | None = None,
        augment: Mapping[str, Any] | None = None,
        test: bool = True,
        distilled: bool = False,
    ) -> TrainConfig:
        """The options of one run; ``changes``, ``optim`` and ``augment`` are fields of its groups of options."""
        distill = DistillConfig(teacher=self.teacher, teacher_weights=self.teacher_weights)
        epochs = self.epochs if self.epochs is None else round(self.epochs / fraction)
        return TrainConfig(
            data=self.data,
            source=DataConfig(
                fraction=None if fraction == 1 else fraction,
                classes=self.classes,
                val_fraction=self.val_fraction,
                skip_test=not test,
                data_root=self.data_root,
                skip_bad=self.skip_bad,
                workers=self.workers,
            ),
            model=replace(ModelConfig(model=model, image_size=self.image_size), **(changes or {})),
            optim=OptimConfig(
                **{"recipe": self.recipe, "epochs": epochs, "batch_size": self.batch_size, "lr": self.lr}
                | dict(optim or {})
            ),
            augment=AugmentConfig(**(augment or {})),
            distill=distill if distilled else DistillConfig(),
            run=RunConfig(seed=seed, device=self.device),
        )

    def cell(
        self,
        model: str,
        key: str,
        variant: Variant,
        seed: int,
        *,
        fraction: float = 1.0,
        changes: Mapping[str, Any] | None = None,
        labels: Mapping[str, Label] | None = None,
        record: bool = False,
        masks: tuple[int, ...] | None = None,
        test: bool = True,
        distilled: bool = False,
    ) -> Cell:
        """A run of a variant of a model.

        Args:
            model: its name.
            key: what the variant is called in names and labels.
            variant: what it changes.
            seed: of the run.
            fraction: the part of each class to learn from.
            changes: fields of the model's options besides the variant's.
            labels: what else distinguishes it; part of its name too.
            record, masks: as in :class:`Cell`.
            test: whether the test part is read, once, at the end.
            distilled: whether it learns from the teacher, too.
        """
        more = {**({"fraction": fraction} if fraction != 1 else {}), **(labels or {})}
        words = [model.removeprefix("convit_"), key, *(f"{name}_{value:g}" for name, value in more.items())]
        return Cell(
            name="-".join([*words, f"seed_{seed}"]),
            labels={"model": model, "variant": key, "fraction": fraction, **(labels or {})},
            config=self.config(
                model,
                seed,
                fraction,
                {**variant.changes, **(changes or {})},
                optim=variant.optim,
                augment=variant.augment,
                test=test,
                distilled=distilled,
            ),
            record=record,
            masks=masks,
        )


def _digest(weights: Path | None) -> str | None:
    """Of a file of weights, or of those in a run folder; the path of what is not there, for others to refuse."""
    if weights is None:
        return None
    file = weights.expanduser()
    file = file / WEIGHTS if file.is_dir() else file
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file.is_file() else str(weights)


def decided_model(settings: Settings) -> str:
    """The model that ``convit train`` would take for the data."""
    source = open_source(settings.data, root=settings.data_root, missing=settings.skip_bad)
    config = settings.config(None, settings.seeds[0])
    if settings.classes is not None:
        source = some_classes(source, settings.classes, settings.seeds[0])
    return make_plan(config, source, split(source, config.source.val_fraction, config.run.seed)).model_name


def gpsa_layers(model: str) -> int:
    """How many GPSA layers a model has.

    Raises:
        InputError: an unknown name.
    """
    return create_model(model, device="meta").local_up_to_layer


def size_of(model: str) -> str:
    """The size in a model's name.

    >>> size_of("convit_small_plus_patch16_224")
    'small_plus'
    """
    return model.removeprefix("convit_").split("_patch")[0]


def check_each(name: str, values: Sequence[float], low: float, high: float) -> None:
    """Refuses a value outside of the range, and one given twice."""
    for value in values:
        if not low <= value <= high:
            raise InputError(f"{name}: got {value:g}, expected {low:g} to {high:g}")
    if len(set(values)) != len(values):
        raise InputError(f"{name}: got {' '.join(f'{value:g}' for value in values)}, expected each once")
