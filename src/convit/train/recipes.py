"""How to train, by occasion: what the options of ``convit train`` leave open, a recipe fills in.

A recipe is a function from (number of training images, side of the input in pixels, name of the model) to a
:class:`Recipe`. Any of its values can be set by an option of the same name.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from convit.train.config import RecipeName


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A value for every option that can be left open to a recipe; :mod:`convit.train.config` says what each is."""

    epochs: int
    batch_size: int
    base_lr: float
    """Peak learning rate of steps of ``base_batch`` images."""
    base_batch: int
    scaling: float
    """The peak learning rate grows with the batch to this power: 1 is linear, 0.5 the square root."""
    layer_decay: float
    position_lr: float
    warmup_epochs: float
    warmup_lr: float | None
    """None: a hundredth of the peak."""
    min_lr: float
    weight_decay: float
    clip_grad: float
    ema_decay: float
    locality_strength: float
    drop_path: float
    crop_pct: float
    crop_scale: float
    rand_augment: str
    color_jitter: float
    random_erasing: float
    repeated_augmentation: int
    mixup: float
    cutmix: float
    mix_prob: float
    label_smoothing: float

    def lr(self, batch_size: int) -> float:
        """Peak learning rate, ``base_lr (batch_size / base_batch)^scaling``; of a root, two digits.

        >>> paper(images=1_281_167, side=224, model="convit_tiny_patch16_224").lr(1024)
        0.001
        """
        lr = self.base_lr * (batch_size / self.base_batch) ** self.scaling
        return lr if self.scaling == 1 else float(f"{lr:.2g}")


MODERATE = "rand-m6-mstd0.5-inc1"
"""RandAugment of two operations, their magnitudes drawn around 6 of 10 with a standard deviation of 0.5."""


def small(images: int, side: int, model: str) -> Recipe:
    """From scratch on few or small images.

    Command: ``convit train DATA``. Source: searched on parts of CIFAR-10 for short trainings, see docs/small-data.md,
    and tried out on scikit-learn's digits. Shows about ``1300 sqrt(images)`` images in all, so short a training that
    RandAugment and mixing cost more than they bring: up to 64 px there is neither. Expected: 99 to 100% on the digits
    after 36 epochs, two minutes on two CPU cores.

    >>> small(images=1294, side=16, model="convit_micro_patch4_16").epochs
    36
    """
    light = side <= 64
    epochs = min(200, max(10, round(1300 / math.sqrt(images))))
    return Recipe(
        epochs=epochs,
        batch_size=_batch_size(images),
        base_lr=2e-3,
        base_batch=64,
        scaling=0.5,
        layer_decay=1.0,
        position_lr=1.0,
        warmup_epochs=min(5.0, epochs / 10),
        warmup_lr=None,
        min_lr=1e-5,
        weight_decay=0.05,
        clip_grad=1.0,
        ema_decay=0.0,
        locality_strength=2.0,
        drop_path=0.05,
        crop_pct=1.0,
        crop_scale=0.6 if light else 0.35,
        rand_augment="" if light else MODERATE,
        color_jitter=0.0,
        random_erasing=0.0,
        repeated_augmentation=1,
        mixup=0.0 if light else 0.2,
        cutmix=0.0 if light else 1.0,
        mix_prob=0.5,
        label_smoothing=0.1,
    )


def finetune(images: int, side: int, model: str) -> Recipe:
    """From weights that have seen other images: fewer steps, slower, and slowest near the image.

    Command: ``convit train DATA --pretrained`` or ``--weights FILE``. Source: layer-wise decay of the learning rate as
    BEiT and MAE fine-tune vision transformers (0.65 to 0.75 for 12 blocks); the rest tried out from one half of
    CIFAR-10's classes to the other. Expected, with 20 images of each of 5 classes: 43%, against 32% from scratch with
    the same augmentation, see docs/fine-tuning.md.

    >>> finetune(images=250, side=32, model="convit_micro_patch4_32").layer_decay
    0.75
    """
    epochs = min(100, max(5, round(800 / math.sqrt(images))))
    warmup = min(5.0, epochs / 10)
    return replace(
        small(images, side, model),
        epochs=epochs,
        warmup_epochs=warmup,
        base_lr=1e-3,
        layer_decay=0.75,
        rand_augment="" if side <= 16 else MODERATE,
        mixup=0.2,
        cutmix=0.0 if side <= 16 else 1.0,
    )


def paper(images: int, side: int, model: str) -> Recipe:
    """From scratch as the paper trains on ImageNet-1k.

    Command: ``convit train IMAGENET --recipe paper --model convit_tiny_patch16_224``, with ``--accumulate`` if 1024
    images do not fit at once. Source: section 4 of the paper and the options of its code, which are DeiT's. Expected
    (Table 1): top-1 73.1 (tiny), 81.3 (small), 82.4 (base). Cost: 300 epochs of 1.28 million images of 224 px.

    The "plus" models have a batch of 512 and a peak of 4e-4. The published options name colour jitter of 0.4, but timm
    leaves it out beside RandAugment, so the published models were trained without. The cosine falls with every step,
    in the published code with every epoch.

    >>> recipe = paper(images=1_281_167, side=224, model="convit_small_plus_patch16_224")
    >>> recipe.batch_size, recipe.lr(512)
    (512, 0.0004)
    """
    plus = "_plus_" in model
    return Recipe(
        epochs=300,
        batch_size=min(512 if plus else 1024, max(2, images // 3 * 3 // 2 * 2)),
        base_lr=4e-4 if plus else 5e-4,
        base_batch=512,
        scaling=1.0,
        layer_decay=1.0,
        position_lr=1.0,
        warmup_epochs=5.0,
        warmup_lr=1e-6,
        min_lr=1e-5,
        weight_decay=0.05,
        clip_grad=0.0,
        ema_decay=0.0,
        locality_strength=1.0,
        drop_path=0.1,
        crop_pct=224 / 256,
        crop_scale=0.08,
        rand_augment="rand-m9-mstd0.5-inc1",
        color_jitter=0.0,
        random_erasing=0.25,
        repeated_augmentation=3,
        mixup=0.8,
        cutmix=1.0,
        mix_prob=1.0,
        label_smoothing=0.1,
    )


RECIPES: dict[RecipeName, Callable[[int, int, str], Recipe]] = {"small": small, "finetune": finetune, "paper": paper}


def _batch_size(images: int) -> int:
    """A sixteenth of the images, as a power of two from 8 to 128, and no more than there are."""
    sixteenth = max(1, images // 16)
    return min(128, max(8, 1 << sixteenth.bit_length() - 1), images // 2 * 2)
