"""From what was asked and what the data is to a run with nothing left open."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from convit.classifier import CONFIG, WEIGHTS, ClassifierConfig, read_config
from convit.data import (
    Augmentation,
    DataSource,
    ImageSet,
    Preprocess,
    class_balanced_subset,
    decoded_bytes,
    native_size,
    shown,
    stratified_split,
)
from convit.errors import InputError
from convit.train.config import RecipeName, TrainConfig
from convit.train.geometry import geometry
from convit.train.recipes import RECIPES, Recipe
from convit.train.settle import filled_augmentation, filled_schedule, settle

CACHE_BYTES = 1 << 30
"""Sets of small images that take no more than this, decoded, are kept in memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A run with nothing left to decide."""

    config: TrainConfig
    """The options, none of them ``None`` where that means 'decide': what ``config.yaml`` will say."""
    values: Recipe
    """Those of the options that a recipe can decide."""
    lr: float
    """Peak learning rate."""
    warmup_lr: float
    """Learning rate that the warm-up begins at."""
    out: Path
    model_name: str
    model_args: dict[str, Any]
    """Keywords of the model besides ``num_classes``, as JSON values."""
    workers: int
    cache: bool
    """Whether decoded images are kept in memory."""
    train: ImageSet
    val: ImageSet
    test: ImageSet | None
    preprocess: Preprocess
    augmentation: Augmentation
    keep_head: bool
    """Whether the weights to start from have the same classes, so that their head is kept."""
    decided: dict[str, str]
    """What was decided from the data, and why, by option."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of the model's outputs."""
        return self.train.class_names

    @property
    def epochs(self) -> int:
        """How many there are at most."""
        return self.values.epochs

    @property
    def batch_size(self) -> int:
        """Images of one step."""
        return self.values.batch_size

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch; images beyond a multiple of the batch wait for the next epoch's order."""
        return shown(len(self.train), self.values.repeated_augmentation) // self.batch_size


def split(source: DataSource, val_fraction: float, seed: int) -> tuple[ImageSet, ImageSet, ImageSet | None]:
    """Training, validation and test images: the official parts, or a part of each class drawn by seed.

    Raises:
        InputError: no training images, or none left to validate on.
    """
    images = source.train or source.whole
    if images is None:
        raise InputError(f"{source.name}: only a test part in it; expected a train/ folder or class folders")
    val = source.val
    if val is None:
        kept, held_out = stratified_split(images.targets, val_fraction, seed)
        images, val = images.subset(kept), images.subset(held_out)
    if len(val) == 0:
        raise InputError(f"{source.name}: one image per class, none left to validate on; expected at least 2 per class")
    return images, val, source.test


def make_plan(config: TrainConfig, source: DataSource, parts: tuple[ImageSet, ImageSet, ImageSet | None]) -> Plan:
    """Decides what ``config`` leaves open.

    Raises:
        InputError: options that do not fit the data or each other.
    """
    everything, val, test = parts
    train = _subset(everything, config)
    native = native_size(train)
    start = _config_to_start_from(config)
    name, model_args, decided = geometry(config, native, len(train), start)
    size = tuple(model_args["img_size"])
    recipe_name, recipe = _recipe(config, name, min(size), len(train), len(everything))
    recipe = replace(recipe, locality_strength=model_args.get("locality_strength", recipe.locality_strength))
    if start is not None:
        recipe = replace(recipe, crop_pct=start.preprocess.crop_pct)
    values, decided_schedule = settle(config, recipe, len(train))
    model_args["locality_strength"] = values.locality_strength
    augment, decided_augmentation = filled_augmentation(config.augment, values, source)
    optim = filled_schedule(config.optim, values, recipe_name)
    assert optim.lr is not None
    assert optim.warmup_lr is not None
    model = replace(
        config.model,
        crop_pct=values.crop_pct,
        drop_path=values.drop_path,
        locality_strength=None if _is_started(config) else values.locality_strength,  # that of the weights
        model=name,
        image_size=size,
        patch_size=model_args["patch_size"],
        local_up_to_layer=model_args["local_up_to_layer"],
        weights=_absolute(config.model.weights),
    )
    cache = native <= 112 and decoded_bytes(train) <= CACHE_BYTES
    workers = _workers(config, cache and min(size) <= 16)
    out = config.run.out or Path("runs") / _folder_name(source, name)
    preprocess = Preprocess(image_size=size) if start is None else start.preprocess
    return Plan(
        config=replace(
            config,
            data=source.root,
            source=replace(config.source, workers=workers),
            model=model,
            optim=optim,
            augment=augment,
            distill=replace(config.distill, teacher_weights=_absolute(config.distill.teacher_weights)),
            run=replace(config.run, out=out),
        ),
        values=values,
        lr=optim.lr,
        warmup_lr=optim.warmup_lr,
        out=out,
        model_name=name,
        model_args=model_args,
        workers=workers,
        cache=cache,
        train=train,
        val=val,
        test=test,
        preprocess=replace(preprocess, image_size=size, crop_pct=values.crop_pct),
        augmentation=_augmentation(augment.crop, bool(augment.flip), values),
        keep_head=start is not None and tuple(start.class_names) == train.class_names,
        decided=decided | decided_schedule | decided_augmentation,
    )


def _recipe(config: TrainConfig, model: str, side: int, images: int, everything: int) -> tuple[RecipeName, Recipe]:
    """The recipe's name and its values, for ``images`` of ``everything`` that there is to learn from."""
    name: RecipeName = config.optim.recipe or ("finetune" if _is_started(config) else "small")
    recipe = RECIPES[name](images, side, model)
    if fraction := config.source.fraction:  # the same number of images shown, as in the paper's Table 2
        recipe = replace(recipe, epochs=round(RECIPES[name](everything, side, model).epochs / fraction))
    return name, recipe


def _is_started(config: TrainConfig) -> bool:
    """Whether the run starts from weights, not from scratch."""
    return config.model.pretrained or config.model.weights is not None


def _augmentation(crop: str, flip: bool, values: Recipe) -> Augmentation:
    return Augmentation(
        crop=crop,
        scale=values.crop_scale,
        flip=flip,
        rand_augment=values.rand_augment,
        color_jitter=values.color_jitter,
        random_erasing=values.random_erasing,
    )


def _workers(config: TrainConfig, quick: bool) -> int:
    """Processes that load images; none for those that are small and in memory."""
    if config.source.workers is not None:
        return config.source.workers
    return 0 if quick else min(8, torch.get_num_threads())


def _subset(train: ImageSet, config: TrainConfig) -> ImageSet:
    """The training images that ``--fraction`` or ``--per-class`` leave."""
    fraction, per_class, seed = config.source.fraction, config.source.per_class, config.run.seed
    if fraction is None and per_class is None:
        return train
    return train.subset(class_balanced_subset(train.targets, fraction=fraction, per_class=per_class, seed=seed))


def _config_to_start_from(config: TrainConfig) -> ClassifierConfig | None:
    """What is known of the model that the run starts from; nothing of a bare file of weights, or of none.

    A run that goes on needs what it started from no more: it is all in its own folder.
    """
    weights, out = config.model.weights, config.run.out
    if weights is None:
        return None
    if config.run.resume and out is not None and any((out / "checkpoints").glob("*")) and (out / CONFIG).is_file():
        return read_config(out)
    weights = weights.expanduser()
    if not weights.exists():
        raise InputError(f"weights: no such file or folder {weights}; expected .safetensors, .pth, or a run folder")
    if weights.name == WEIGHTS and (weights.parent / CONFIG).is_file():
        weights = weights.parent
    return read_config(weights) if weights.is_dir() else None


def _absolute(path: Path | None) -> Path | None:
    return path and path.expanduser().resolve()


def _folder_name(source: DataSource, model: str) -> str:
    return f"{Path(source.name).name}-{model.removeprefix('convit_').split('_patch')[0]}"
