"""From what was asked and what the data is to a run with nothing left open."""

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from convit.data import (
    Augmentation,
    DataSource,
    ImageSet,
    Preprocess,
    decoded_bytes,
    native_size,
    stratified_split,
)
from convit.errors import InputError
from convit.models import create_model
from convit.train.config import AugmentConfig, OptimConfig, TrainConfig

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
    cutmix: float
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


def geometry(config: TrainConfig, native: int, images: int) -> tuple[str, tuple[int, int], int, dict[str, str]]:
    """Model name, image size, patch size, and why: by the images' native size unless they are given.

    Args:
        config: the options.
        native: the median of the images' shorter sides, in pixels.
        images: how many there are to learn from.

    Raises:
        InputError: an unknown model, or a size that the patch does not divide.
    """
    decided = {}
    asked = config.model
    name = asked.model
    if name is None:
        name = next(
            (fit for limit, fit in BY_NATIVE_SIZE if native <= limit), LARGE if images < MANY else LARGE_AND_MANY
        )
        decided["model"] = f"{name} (the images' shorter side is {native} px in the median)"
    defaults = create_model(name, device="meta")  # also refuses an unknown name
    size = asked.image_size
    height, width = (size * 2)[:2] if size else defaults.img_size
    patch_size = asked.patch_size or defaults.patch_size
    if not size:
        decided["image-size"] = f"{height} x {width} (the model's)"
    if asked.patch_size is None:
        decided["patch-size"] = f"{patch_size} (the model's): {height // patch_size} x {width // patch_size} patches"
    return name, (height, width), patch_size, decided


BY_NATIVE_SIZE = ((24, "convit_micro_patch4_16"), (48, "convit_micro_patch4_32"), (112, "convit_micro_patch8_64"))
"""The model for images whose shorter side is up to so many pixels."""
LARGE, LARGE_AND_MANY, MANY = "convit_micro_patch8_128", "convit_tiny_patch16_224", 20_000
"""The models for larger images: one that a laptop trains in minutes, and the paper's from so many images on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """How long, in which steps, and how fast."""

    batch_size: int
    epochs: int
    lr: float
    warmup_epochs: float


def make_schedule(optim: OptimConfig, images: int) -> tuple[Schedule, dict[str, str]]:
    """The schedule for so many training images, and what of it was decided.

    Raises:
        InputError: a batch larger than the data, a warm-up longer than the training.
    """
    decided = {}
    batch_size = optim.batch_size
    if batch_size is None:
        sixteenth = max(1, images // 16)
        batch_size = min(128, max(8, 1 << sixteenth.bit_length() - 1), images // 2 * 2)
        decided["batch-size"] = f"{batch_size} ({images} training images)"
    if batch_size > images:
        raise InputError(f"batch-size: got {batch_size}, expected at most the {images} training images")
    epochs = optim.epochs
    if epochs is None:
        epochs = min(200, max(10, round(1300 / math.sqrt(images))))
        decided["epochs"] = f"{epochs} ({images} training images)"
    lr = optim.lr
    if lr is None:
        lr = float(f"{2e-3 * math.sqrt(batch_size / 64):.2g}")
        decided["lr"] = f"{lr:g} (batch size {batch_size})"
    warmup_epochs = min(5.0, epochs / 10) if optim.warmup_epochs is None else optim.warmup_epochs
    if warmup_epochs > epochs:
        raise InputError(f"warmup-epochs: got {warmup_epochs:g}, expected at most the {epochs} epochs")
    return Schedule(batch_size=batch_size, epochs=epochs, lr=lr, warmup_epochs=warmup_epochs), decided


def make_augmentation(
    augment: AugmentConfig, source: DataSource, side: int
) -> tuple[Augmentation, float, dict[str, str]]:
    """The augmentation of one image, CutMix's alpha, and what of it was decided, for inputs of ``side`` pixels."""
    decided = {}
    flip = augment.flip
    if flip is None:
        flip = source.flip
        decided["flip"] = "yes" if flip else f"no (a mirrored image of {source.name} shows something else)"
    scale = (0.6 if side <= 64 else 0.35) if augment.crop_scale is None else augment.crop_scale
    rand_augment = augment.rand_augment
    if rand_augment is None:
        rand_augment = "" if side <= 16 else "rand-m6-mstd0.5-inc1"
    cutmix = (0.0 if side <= 16 else 1.0) if augment.cutmix is None else augment.cutmix
    decided["augmentation"] = (
        f"crop {augment.crop} (scale {scale:g}), RandAugment {rand_augment or 'off'}, "
        f"mixup {augment.mixup:g}, cutmix {cutmix:g}"
    )
    augmentation = Augmentation(
        crop=augment.crop,
        scale=scale,
        flip=flip,
        rand_augment=rand_augment,
        color_jitter=augment.color_jitter,
        random_erasing=augment.random_erasing,
    )
    return augmentation, cutmix, decided


def make_plan(config: TrainConfig, source: DataSource, parts: tuple[ImageSet, ImageSet, ImageSet | None]) -> Plan:
    """Decides what ``config`` leaves open.

    Raises:
        InputError: options that do not fit the data or each other.
    """
    train, val, test = parts
    native = native_size(train)
    name, size, patch_size, decided = geometry(config, native, len(train))
    schedule, decided_schedule = make_schedule(config.optim, len(train))
    augmentation, cutmix, decided_augmentation = make_augmentation(config.augment, source, min(size))
    model_args: dict[str, Any] = {
        "img_size": list(size),
        "patch_size": patch_size,
        "locality_strength": config.model.locality_strength,
    }
    if config.model.local_up_to_layer is not None:
        model_args["local_up_to_layer"] = config.model.local_up_to_layer
    try:
        model_args["local_up_to_layer"] = create_model(name, device="meta", **model_args).local_up_to_layer
    except ValueError as error:
        raise InputError(str(error)) from error

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
            model=replace(
                config.model,
                model=name,
                image_size=size,
                patch_size=patch_size,
                local_up_to_layer=model_args["local_up_to_layer"],
            ),
            optim=replace(config.optim, **asdict(schedule)),
            augment=replace(
                config.augment,
                flip=augmentation.flip,
                crop_scale=augmentation.scale,
                rand_augment=augmentation.rand_augment,
                cutmix=cutmix,
            ),
            run=replace(config.run, out=out),
        ),
        out=out,
        model_name=name,
        model_args=model_args,
        **asdict(schedule),
        cutmix=cutmix,
        workers=workers,
        cache=cache,
        train=train,
        val=val,
        test=test,
        preprocess=Preprocess(image_size=size),
        augmentation=augmentation,
        decided=decided | decided_schedule | decided_augmentation,
    )


def _folder_name(source: DataSource, model: str) -> str:
    return f"{Path(source.name).name}-{model.removeprefix('convit_').split('_patch')[0]}"
