"""Recipes. A recipe is a function from the facts of the data and the config (asked) to values of options.

Model and image size are decided before and are in the config. A recipe's value may depend on other options: the
learning rate on the batch size, the warm-up on the number of epochs. The values are used for options not given.
"""

import math
from collections.abc import Callable
from typing import Any

from convit.choices import OptimizerName, RecipeName
from convit.data.select import Facts
from convit.training.options import Asked

Values = dict[str, Any]
"""By option of :class:`convit.training.options.Asked`."""

PEAK: dict[OptimizerName, float] = {"muon": 5.7e-3, "adamw": 2e-3}
"""Peak learning rate from scratch, at a batch of 64 images."""
MODERATE = "rand-m6-mstd0.5-inc1"
"""RandAugment of two operations, their magnitudes drawn around 6 of 10 with a standard deviation of 0.5."""
OFTEN = 30
"""Shown so often or more an image is changed by RandAugment each time: then it helps, shown less often it does not."""
BY_EPOCHS = ("rand_augment", "mixup", "cutmix", "mix_prob")
"""What therefore depends on the number of epochs: runs of other numbers that are compared have it from one of them."""


def small(facts: Facts, asked: Asked) -> Values:
    """From scratch on few or small images.

    Command: ``convit train DATA``. Source: searched on parts of CIFAR-10 for short trainings, see docs/small-data.md,
    and tried out on scikit-learn's digits. It shows about ``1300 sqrt(images)`` images in all. RandAugment helps where
    each image is shown 30 times or more, so with some 1,900 images or fewer, and harms otherwise. Cost: two minutes on
    two CPU cores for the digits. Expected: 99 to 100% on them after 36 epochs.
    """
    side = min(asked.image_size or (0,))
    light = side <= 64
    epochs = asked.epochs or _epochs(lambda images: min(200, max(10, round(1300 / math.sqrt(images)))), facts, asked)
    often = epochs >= OFTEN
    mixed = not light and (often or bool(asked.mix_prob))
    batch_size = asked.batch_size or _batch_size(facts.images)
    opt = asked.opt or "muon"
    lr = asked.lr or _two_digits(PEAK[opt] * math.sqrt(batch_size / 64))
    return {
        "epochs": epochs,
        **_first(asked, epochs),
        "batch_size": batch_size,
        "opt": opt,
        "lr": lr,
        "layer_decay": 1.0,
        "position_lr": 1.0,
        "warmup_epochs": min(5.0, epochs / 10),
        "warmup_lr": lr / 100,
        "min_lr": 1e-5,
        "weight_decay": 0.05,
        "clip_grad": 1.0,
        "ema_decay": 0.0,
        "locality_strength": 2.0,
        "drop_path": 0.05,
        "crop_pct": 1.0,
        **_crop(asked, "shift" if light else "random_resized", 0.6 if light else 0.35),
        "rand_augment": MODERATE if often and side > 16 else "",
        "color_jitter": 0.0,
        "random_erasing": 0.0,
        "repeated_augmentation": 1,
        "mixup": 0.2 if mixed else 0.0,
        "cutmix": 1.0 if mixed else 0.0,
        "mix_prob": 0.5,
        "label_smoothing": 0.1,
    }


def finetune(facts: Facts, asked: Asked) -> Values:
    """From weights trained on other images: fewer steps and lower learning rates, the lowest in the first blocks.

    Command: ``convit train DATA --pretrained`` or ``--weights FILE``. Source: layer-wise decay of the learning rate as
    BEiT and MAE fine-tune vision transformers (0.65 to 0.75 for 12 blocks); the rest tried out from one half of
    CIFAR-10's classes to the other. Cost: about ``800 sqrt(images)`` images shown. Expected, with 20 images of each of
    5 classes: 43%, against 32% from scratch with the same augmentation, see docs/fine-tuning.md.
    """
    tiny = min(asked.image_size or (0,)) <= 16
    epochs = asked.epochs or _epochs(lambda images: min(100, max(5, round(800 / math.sqrt(images)))), facts, asked)
    batch_size = asked.batch_size or _batch_size(facts.images)
    opt = asked.opt or "adamw"
    lr = asked.lr or _two_digits(PEAK[opt] / 2 * math.sqrt(batch_size / 64))
    return small(facts, asked) | {
        "epochs": epochs,
        "first_size": asked.image_size,
        "first_epochs": 0,
        "opt": opt,
        "lr": lr,
        "layer_decay": 0.75,
        "warmup_epochs": min(5.0, epochs / 10),
        "warmup_lr": lr / 100,
        **_crop(asked, "random_resized", 0.6 if min(asked.image_size or (0,)) <= 64 else 0.35),
        "rand_augment": "" if tiny else MODERATE,
        "mixup": 0.2,
        "cutmix": 0.0 if tiny else 1.0,
    }


def paper(facts: Facts, asked: Asked) -> Values:
    """From scratch as the paper trains on ImageNet-1k.

    Command: ``convit train IMAGENET --recipe paper --model convit_tiny_patch16_224``, with ``--accumulate`` if 1024
    images do not fit at once. Source: section 4 of the paper and the options of its code, which are DeiT's. Cost: 300
    epochs of 1.28 million images of 224 px. Expected (Table 1): top-1 73.1 (tiny), 81.3 (small), 82.4 (base).

    The "plus" models have a batch of 512 and a peak of 4e-4. The published options name colour jitter of 0.4, but timm
    does not use it together with RandAugment, so the published models were trained without it. The recipe lowers the
    learning rate with every step, the published code with every epoch.
    """
    plus = "_plus_" in (asked.model or "")
    epochs = asked.epochs or _epochs(lambda images: 300, facts, asked)
    batch_size = asked.batch_size or min(512 if plus else 1024, max(2, facts.images // 3 * 3 // 2 * 2))
    return {
        "epochs": epochs,
        "first_size": asked.image_size,
        "first_epochs": 0,
        "batch_size": batch_size,
        "opt": asked.opt or "adamw",
        "lr": asked.lr or (4e-4 if plus else 5e-4) * (batch_size / 512),
        "layer_decay": 1.0,
        "position_lr": 1.0,
        "warmup_epochs": min(5.0, epochs / 10),
        "warmup_lr": 1e-6,
        "min_lr": 1e-5,
        "weight_decay": 0.05,
        "clip_grad": 0.0,
        "ema_decay": 0.0,
        "locality_strength": 1.0,
        "drop_path": 0.1,
        "crop_pct": 224 / 256,
        **_crop(asked, "random_resized", 0.08),
        "rand_augment": "rand-m9-mstd0.5-inc1",
        "color_jitter": 0.0,
        "random_erasing": 0.25,
        "repeated_augmentation": 3,
        "mixup": 0.8,
        "cutmix": 1.0,
        "mix_prob": 1.0,
        "label_smoothing": 0.1,
    }


RECIPES: dict[RecipeName, Callable[[Facts, Asked], Values]] = {"small": small, "finetune": finetune, "paper": paper}


def _first(asked: Asked, epochs: int) -> Values:
    """Three quarters of the image's sides for 60% of the epochs, where that leaves 6 x 6 patches or more.

    Positional attention is a function of distances in patches, so it is the same at any size of the grid; only the
    position embedding is resized. Where one of the two is asked for, the other one follows.
    """
    assert asked.image_size is not None
    patch = asked.patch_size or 1
    whole = asked.first_size is not None and (asked.first_size * 2)[:2] == (asked.image_size * 2)[:2]
    if asked.first_epochs == 0 or (whole and asked.first_epochs is None):  # not wanted
        return {"first_size": asked.image_size, "first_epochs": 0}
    known = asked.teacher is None and asked.teacher_weights is None and min(asked.image_size) // patch >= 8
    if not (known or asked.first_size is not None or asked.first_epochs):
        return {"first_size": asked.image_size, "first_epochs": 0}
    sides = tuple(max(patch, side // patch * 3 // 4 * patch) for side in asked.image_size)
    return {"first_size": sides, "first_epochs": round(0.6 * epochs)}


def _crop(asked: Asked, crop: str, scale: float) -> Values:
    """The crop, and the smallest part that it takes if it takes one; who asks for such a part gets the crop for it."""
    taken = asked.crop or (crop if asked.crop_scale is None else "random_resized")
    return {"crop": taken, "crop_scale": scale if taken == "random_resized" else None}


def _epochs(of: Callable[[int], int], facts: Facts, asked: Asked) -> int:
    """Epochs by the number of images; for a part of the data as many images are shown as for all of it (Table 2)."""
    return of(facts.images) if asked.fraction is None else round(of(facts.available) / asked.fraction)


def _batch_size(images: int) -> int:
    """A sixteenth of the images, as a power of two from 8 to 128, and no more than there are."""
    sixteenth = max(1, images // 16)
    return min(128, max(8, 1 << sixteenth.bit_length() - 1), images // 2 * 2)


def _two_digits(value: float) -> float:
    return float(f"{value:.2g}")
