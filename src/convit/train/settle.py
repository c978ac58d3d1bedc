"""The recipe's values and the given ones become one set with nothing left open."""

from dataclasses import fields, replace
from typing import TypeVar

from convit.data import DataSource, shown
from convit.errors import InputError
from convit.train.config import AugmentConfig, OptimConfig, RecipeName, TrainConfig
from convit.train.recipes import Recipe

NAMES = tuple(entry.name for entry in fields(Recipe))
Group = TypeVar("Group", OptimConfig, AugmentConfig)


def settle(config: TrainConfig, recipe: Recipe, images: int) -> tuple[Recipe, dict[str, str]]:
    """``recipe`` with the values that ``config`` gives in place of its own, and what was decided of the schedule.

    Raises:
        InputError: a batch larger than the data, a warm-up longer than the training.
    """
    given = {
        name: value
        for group in (config.model, config.optim, config.augment)
        for name in NAMES
        if (value := getattr(group, name, None)) is not None
    }
    values = replace(recipe, **given)
    decided = {}
    if config.optim.warmup_epochs is None:
        values = replace(values, warmup_epochs=min(recipe.warmup_epochs, values.epochs / 10))
    if config.optim.batch_size is None:
        decided["batch-size"] = f"{values.batch_size} ({images} training images)"
    if config.optim.epochs is None:
        decided["epochs"] = f"{values.epochs} ({images} training images)"
    if config.optim.lr is None:
        decided["lr"] = f"{recipe.lr(values.batch_size):g} (batch size {values.batch_size})"
    if config.optim.layer_decay is None and recipe.layer_decay < 1:
        decided["layer-decay"] = f"{recipe.layer_decay:g} (each block learns slower than the next)"
    _check(values, config.optim, images)
    return values, decided


def _check(values: Recipe, optim: OptimConfig, images: int) -> None:
    repeats, batch = values.repeated_augmentation, values.batch_size
    if batch > images:
        raise InputError(f"batch-size: got {batch}, expected at most the {images} training images")
    if batch > shown(images, repeats):
        raise InputError(
            f"repeated-augmentation: got {repeats}, with which an epoch of {images} training images has "
            f"{shown(images, repeats)}; expected at least a step of {batch}: a lower one, or a lower --batch-size"
        )
    if optim.accumulate > batch:
        raise InputError(f"accumulate: got {optim.accumulate}, expected at most the {batch} images of a step")
    if values.warmup_epochs > values.epochs:
        raise InputError(f"warmup-epochs: got {values.warmup_epochs:g}, expected at most the {values.epochs} epochs")


def filled(group: Group, values: Recipe) -> Group:
    """The options of a group with ``values`` in place of what was left open."""
    own = {entry.name for entry in fields(group)}
    return replace(group, **{name: getattr(values, name) for name in NAMES if name in own})


def filled_schedule(optim: OptimConfig, values: Recipe, recipe_name: RecipeName) -> OptimConfig:
    """The options of the schedule with nothing left open."""
    lr = values.lr(values.batch_size) if optim.lr is None else optim.lr
    warmup_lr = lr / 100 if values.warmup_lr is None else values.warmup_lr
    return replace(filled(optim, values), recipe=recipe_name, lr=lr, warmup_lr=warmup_lr)


def filled_augmentation(
    augment: AugmentConfig, values: Recipe, source: DataSource
) -> tuple[AugmentConfig, dict[str, str]]:
    """The options of the augmentation with nothing left open, and what was decided."""
    decided = {}
    flip = augment.flip
    if flip is None:
        flip = source.flip
        decided["flip"] = "yes" if flip else f"no (a mirrored image of {source.name} shows something else)"
    decided["augmentation"] = (
        f"crop {augment.crop} (scale {values.crop_scale:g}), RandAugment {values.rand_augment or 'off'}, "
        f"mixup {values.mixup:g}, cutmix {values.cutmix:g}"
    )
    return replace(filled(augment, values), flip=flip), decided
