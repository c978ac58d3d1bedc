"""How to train, by occasion: what the options of ``convit train`` leave open, a recipe fills in.

A recipe is a function from (number of training images, side of the input in pixels) to a :class:`Recipe`. Any of its
values can be set by an option of the same name.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Values for the options that were left open."""

    epochs: int
    batch_size: int
    lr_at_64: float
    """Peak learning rate at 64 images per step; it grows with the square root of their number."""
    warmup_epochs: float
    layer_decay: float
    """The learning rate of a block, over that of the block above it."""
    locality_strength: float
    drop_path: float
    crop_scale: float
    rand_augment: str
    mixup: float
    cutmix: float


def small(images: int, side: int) -> Recipe:
    """From scratch on few or small images.

    Source: tried out on scikit-learn's digits and, for three epochs, on CIFAR-10. Shows about ``1300 sqrt(images)``
    images in all. Expected: 98% on the digits after 36 epochs, 1.5 minutes on two CPU cores.

    >>> small(images=1294, side=16).epochs
    36
    """
    tiny = side <= 16
    epochs = min(200, max(10, round(1300 / math.sqrt(images))))
    return Recipe(
        epochs=epochs,
        batch_size=_batch_size(images),
        lr_at_64=2e-3,
        warmup_epochs=min(5.0, epochs / 10),
        layer_decay=1.0,
        locality_strength=2.0,
        drop_path=0.05,
        crop_scale=0.6 if side <= 64 else 0.35,
        rand_augment="" if tiny else "rand-m6-mstd0.5-inc1",
        mixup=0.2,
        cutmix=0.0 if tiny else 1.0,
    )


def finetune(images: int, side: int) -> Recipe:
    """From weights that have seen other images: fewer steps, slower, and slowest near the image.

    Source: layer-wise decay of the learning rate as BEiT and MAE fine-tune vision transformers (0.65 to 0.75 for 12
    blocks); the rest tried out from one half of CIFAR-10's classes to the other, see docs/fine-tuning.md.

    >>> finetune(images=250, side=32).layer_decay
    0.75
    """
    epochs = min(100, max(5, round(800 / math.sqrt(images))))
    scratch = small(images, side)
    warmup = min(5.0, epochs / 10)
    return replace(scratch, epochs=epochs, warmup_epochs=warmup, lr_at_64=1e-3, layer_decay=0.75)


RECIPES: dict[str, Callable[[int, int], Recipe]] = {"small": small, "finetune": finetune}


def _batch_size(images: int) -> int:
    """A sixteenth of the images, as a power of two from 8 to 128, and no more than there are."""
    sixteenth = max(1, images // 16)
    return min(128, max(8, 1 << sixteenth.bit_length() - 1), images // 2 * 2)
