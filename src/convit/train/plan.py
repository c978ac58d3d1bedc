"""From what was asked and what the data is to a run with nothing left open."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

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
    stratified_split,
)
from convit.errors import InputError
from convit.models import create_model
from convit.train.config import AugmentConfig, OptimConfig, TrainConfig
from convit.train.recipes import RECIPES, Recipe

CACHE_BYTES = 1 << 30
"""Sets of small images that take no more than this, decoded, are kept in memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A run with nothing left to decide."""

    config: TrainConfig
    """The options, none of them ``None`` where that means 'decide': what ``config.yaml`` will say."""
    out: Path
    model_name: str
    epochs: int
    batch_size: int
    lr: float
    warmup_epochs: float
    workers: int
    train: ImageSet
    val: ImageSet
    test: ImageSet | None
    preprocess: Preprocess
    augmentation: Augmentation
    model_args: dict[str, Any]
    """Keywords of the model besides ``num_classes``, as JSON values."""
    cache: bool
    """Whether decoded images are kept in memory."""
    keep_head: bool
    """Whether the weights to start from have the same classes, so that their head is kept."""
    decided: dict[str, str]
    """What was decided from the data, and why, by option."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of the model's outputs."""
        return self.train.class_names

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch; images beyond a multiple of the batch wait for the next epoch's order."""
        return len(self.train) // self.batch_size


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


def geometry(
    config: TrainConfig, native: int, images: int, start: ClassifierConfig | None = None
) -> tuple[str, dict[str, Any], dict[str, str]]:
    """Model name, model arguments, and why: by the images' native size unless they are given.

    Args:
        config: the options.
        native: the median of the images' shorter sides, in pixels.
        images: how many there are to learn from.
        start: the classifier to start from, if it is one of ours.

    Raises:
        InputError: an unknown model, or a size that the patch does not divide.
    """
    decided = {}
    asked = config.model
    name = asked.model
    if name is None and start is not None:
        name = start.model_name
        decided["model"] = f"{name} (that of the weights)"
    elif name is None and asked.pretrained:
        name = PRETRAINED
        decided["model"] = f"{name} (the smallest with published weights)"
    elif name is None:
        name = next(
            (fit for limit, fit in BY_NATIVE_SIZE if native <= limit), LARGE if images < MANY else LARGE_AND_MANY
        )
        decided["model"] = f"{name} (the images' shorter side is {native} px in the median)"
    args = dict(start.model_args) if start is not None and start.model_name == name else {}
    try:
        default = create_model(name, device="meta", **args)  # also refuses an unknown name
        height, width = (asked.image_size * 2)[:2] if asked.image_size else default.img_size
        args |= {"img_size": [height, width], "patch_size": asked.patch_size or default.patch_size}
        if asked.local_up_to_layer is not None:
            args["local_up_to_layer"] = asked.local_up_to_layer
        args["local_up_to_layer"] = create_model(name, device="meta", **args).local_up_to_layer
    except (ValueError, TypeError) as error:
        raise InputError(str(error)) from error
    if not asked.image_size:
        decided["image-size"] = f"{height} x {width} (the model's)"
    if asked.patch_size is None:
        patch = args["patch_size"]
        decided["patch-size"] = f"{patch} (the model's): {height // patch} x {width // patch} patches"
    return name, args, decided


PRETRAINED = "convit_tiny_patch16_224"
BY_NATIVE_SIZE = ((24, "convit_micro_patch4_16"), (48, "convit_micro_patch4_32"), (112, "convit_micro_patch8_64"))
"""The model for images whose shorter side is up to so many pixels."""
LARGE, LARGE_AND_MANY, MANY = "convit_micro_patch8_128", "convit_tiny_patch16_224", 20_000
"""The models for larger images: one that a laptop trains in minutes, and the paper's from so many images on."""


def make_schedule(optim: OptimConfig, recipe: Recipe, images: int) -> tuple[OptimConfig, dict[str, str]]:
    """The options of the schedule with nothing left open, and what was decided.

    Raises:
        InputError: a batch larger than the data, a warm-up longer than the training.
    """
    decided = {}
    batch_size, epochs, lr = optim.batch_size, optim.epochs, optim.lr
    if batch_size is None:
        batch_size = recipe.batch_size
        decided["batch-size"] = f"{batch_size} ({images} training images)"
    if batch_size > images:
        raise InputError(f"batch-size: got {batch_size}, expected at most the {images} training images")
    if epochs is None:
        epochs = recipe.epochs
        decided["epochs"] = f"{epochs} ({images} training images)"
    if lr is None:
        lr = float(f"{recipe.lr_at_64 * math.sqrt(batch_size / 64):.2g}")
        decided["lr"] = f"{lr:g} (batch size {batch_size})"
    if optim.layer_decay is None and recipe.layer_decay < 1:
        decided["layer-decay"] = f"{recipe.layer_decay:g} (each block learns slower than the next)"
    warmup_epochs = _first(optim.warmup_epochs, min(recipe.warmup_epochs, epochs / 10))
    if warmup_epochs > epochs:
        raise InputError(f"warmup-epochs: got {warmup_epochs:g}, expected at most the {epochs} epochs")
    filled = replace(optim, batch_size=batch_size, epochs=epochs, lr=lr, warmup_epochs=warmup_epochs)
    return replace(filled, layer_decay=_first(optim.layer_decay, recipe.layer_decay)), decided


def make_augmentation(
    augment: AugmentConfig, recipe: Recipe, source: DataSource
) -> tuple[AugmentConfig, dict[str, str]]:
    """The options of the augmentation with nothing left open, and what was decided."""
    decided = {}
    flip = augment.flip
    if flip is None:
        flip = source.flip
        decided["flip"] = "yes" if flip else f"no (a mirrored image of {source.name} shows something else)"
    filled = replace(
        augment,
        flip=flip,
        crop_scale=_first(augment.crop_scale, recipe.crop_scale),
        rand_augment=_first(augment.rand_augment, recipe.rand_augment),
        mixup=_first(augment.mixup, recipe.mixup),
        cutmix=_first(augment.cutmix, recipe.cutmix),
    )
    decided["augmentation"] = (
        f"crop {filled.crop} (scale {filled.crop_scale:g}), RandAugment {filled.rand_augment or 'off'}, "
        f"mixup {filled.mixup:g}, cutmix {filled.cutmix:g}"
    )
    return filled, decided


T = TypeVar("T")


def _first(given: T | None, otherwise: T) -> T:
    """What was given, if anything."""
    return otherwise if given is None else given


def make_plan(config: TrainConfig, source: DataSource, parts: tuple[ImageSet, ImageSet, ImageSet | None]) -> Plan:
    """Decides what ``config`` leaves open.

    Raises:
        InputError: options that do not fit the data or each other.
    """
    train, val, test = parts
    everything = len(train)
    train = _subset(train, config)
    native = native_size(train)
    start = _config_to_start_from(config)
    name, model_args, decided = geometry(config, native, len(train), start)
    size = tuple(model_args["img_size"])
    fine = config.model.pretrained or config.model.weights is not None
    recipe_name = config.optim.recipe or ("finetune" if fine else "small")
    recipe = RECIPES[recipe_name](len(train), min(size))
    if fraction := config.source.fraction:  # the same number of images shown, as in the paper's Table 2
        recipe = replace(recipe, epochs=round(RECIPES[recipe_name](everything, min(size)).epochs / fraction))
    optim, decided_schedule = make_schedule(replace(config.optim, recipe=recipe_name), recipe, len(train))
    augment, decided_augmentation = make_augmentation(config.augment, recipe, source)
    depth = len(create_model(name, device="meta", **model_args).blocks)
    if config.model.freeze > depth:
        raise InputError(f"freeze: got {config.model.freeze}, expected at most the {depth} blocks of the model")
    model = replace(
        config.model,
        model=name,
        image_size=size,
        patch_size=model_args["patch_size"],
        local_up_to_layer=model_args["local_up_to_layer"],
        locality_strength=_first(
            config.model.locality_strength, model_args.get("locality_strength", recipe.locality_strength)
        ),
        drop_path=_first(config.model.drop_path, recipe.drop_path),
        weights=config.model.weights and config.model.weights.expanduser().resolve(),
    )
    model_args["locality_strength"] = model.locality_strength
    cache = native <= 112 and decoded_bytes(train) <= CACHE_BYTES
    workers = config.source.workers
    if workers is None:
        workers = 0 if cache and min(size) <= 16 else min(8, torch.get_num_threads())
    out = config.run.out or Path("runs") / _folder_name(source, name)
    return Plan(
        config=replace(
            config,
            data=source.root,
            source=replace(config.source, workers=workers),
            model=model,
            optim=optim,
            augment=augment,
            run=replace(config.run, out=out),
        ),
        out=out,
        model_name=name,
        model_args=model_args,
        epochs=_first(optim.epochs, 0),
        batch_size=_first(optim.batch_size, 0),
        lr=_first(optim.lr, 0.0),
        warmup_epochs=_first(optim.warmup_epochs, 0.0),
        workers=workers,
        cache=cache,
        train=train,
        val=val,
        test=test,
        preprocess=Preprocess(image_size=size) if start is None else replace(start.preprocess, image_size=size),
        augmentation=Augmentation(
            crop=augment.crop,
            scale=_first(augment.crop_scale, 1.0),
            flip=bool(augment.flip),
            rand_augment=_first(augment.rand_augment, ""),
            color_jitter=augment.color_jitter,
            random_erasing=augment.random_erasing,
        ),
        keep_head=start is not None and tuple(start.class_names) == train.class_names,
        decided=decided | decided_schedule | decided_augmentation,
    )


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


def _folder_name(source: DataSource, model: str) -> str:
    return f"{Path(source.name).name}-{model.removeprefix('convit_').split('_patch')[0]}"
