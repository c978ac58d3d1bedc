"""Recipes against a table typed from the paper, and that their docstrings tell what a reader needs."""

import re
from typing import Any

import pytest

from convit.choices import RecipeName
from convit.training.options import Asked
from convit.training.recipes import MODERATE, RECIPES, finetune, paper, small
from tests.training.test_plan import facts, plan

# "AdamW, lr 5e-4 x batch / 512, batch 1024, weight decay 0.05, 300 epochs, cosine to 1e-5, 5 warm-up epochs from 1e-6,
# drop path 0.1, RandAugment rand-m9-mstd0.5-inc1, mixup 0.8, cutmix 1.0, label smoothing 0.1, random erasing 0.25,
# repeated augmentation 3, evaluation at 224 from a 256 resize, no EMA"; no clipping, every batch mixed, a = 1.
PAPER = {
    "epochs": 300, "batch_size": 1024, "opt": "adamw", "lr": 1e-3, "weight_decay": 0.05,
    "min_lr": 1e-5, "warmup_epochs": 5.0, "warmup_lr": 1e-6, "drop_path": 0.1, "rand_augment": "rand-m9-mstd0.5-inc1",
    "mixup": 0.8, "cutmix": 1.0, "label_smoothing": 0.1, "random_erasing": 0.25, "repeated_augmentation": 3,
    "crop_pct": 224 / 256, "ema_decay": 0.0, "clip_grad": 0.0, "mix_prob": 1.0, "locality_strength": 1.0,
    "layer_decay": 1.0, "first_size": (224, 224), "first_epochs": 0,
    "position_lr": 1.0, "crop": "random_resized", "crop_scale": 0.08,
    "color_jitter": 0.0,  # 0.4 in the options of the published run; timm leaves it out beside RandAugment
}  # fmt: skip


def asked(side: int = 32, model: str = "m", **more: Any) -> Asked:
    return Asked(data="d", model=model, image_size=(side, side), **more)


def test_paper() -> None:
    imagenet = facts(1_281_167, classes=1000, side=400)
    assert paper(imagenet, asked(224, "convit_small_patch16_224")) == PAPER
    plus = paper(imagenet, asked(224, "convit_small_plus_patch16_224"))
    assert plus == PAPER | {"batch_size": 512, "lr": 4e-4}


NONE, CHANGED, MIXED = ("", 0.0, 0.0), (MODERATE, 0.0, 0.0), (MODERATE, 0.2, 1.0)


@pytest.mark.parametrize(
    ("side", "epochs", "expected"),
    [(16, 30, NONE), (32, 29, NONE), (32, 30, CHANGED), (64, 30, CHANGED), (65, 29, NONE), (65, 30, MIXED)],
)
def test_images_that_are_shown_often_are_changed(side: int, epochs: int, expected: tuple[str, float, float]) -> None:
    """Short trainings underfit (docs/small-data.md)."""
    values = small(facts(100), asked(side, epochs=epochs))
    assert (values["rand_augment"], values["mixup"], values["cutmix"]) == expected


def test_who_asks_for_a_probability_of_mixing_gets_mixing() -> None:
    assert small(facts(100), asked(96, epochs=2, mix_prob=0.3))["cutmix"] == 1.0
    assert plan(facts(100, side=96), image_size=(96,), epochs=2, mix_prob=0.3).options.mixup == 0.2


def test_fine_tuning_mixes() -> None:
    for side, *expected in ((16, "", 0.2, 0.0), (32, MODERATE, 0.2, 1.0)):
        values = finetune(facts(100), asked(side))
        assert [values[key] for key in ("rand_augment", "mixup", "cutmix")] == expected


def test_published_code_leaves_color_jitter_out_beside_rand_augment() -> None:
    """What the recipe relies on, in timm as it is today."""
    from timm.data import create_transform

    steps = create_transform(224, is_training=True, color_jitter=0.4, auto_augment="rand-m9-mstd0.5-inc1").transforms
    assert [type(step).__name__ for step in steps if "Jitter" in type(step).__name__] == []


@pytest.mark.parametrize(
    ("recipe", "opt", "batch", "lr"),
    [(paper, "adamw", 1024, 1e-3), (paper, "adamw", 512, 5e-4), (paper, "adamw", 64, 6.25e-5),
     (small, "adamw", 64, 2e-3), (small, "adamw", 128, 2.8e-3), (small, "adamw", 16, 1e-3), (small, "muon", 32, 4e-3),
     (finetune, "adamw", 64, 1e-3), (finetune, "adamw", 16, 5e-4), (finetune, "muon", 32, 2e-3)],
)  # fmt: skip
def test_rate_by_optimiser_and_batch(recipe: Any, opt: str, batch: int, lr: float) -> None:
    assert recipe(facts(10_000), asked(batch_size=batch, opt=opt))["lr"] == pytest.approx(lr, rel=1e-12)


@pytest.mark.parametrize(
    ("side", "patch", "more", "first"),
    [
        (32, 4, {}, (24, 12)),
        (128, 8, {}, (96, 12)),
        (224, 16, {}, (160, 12)),  # 14 patches a side become 10
        (16, 4, {}, (16, 0)),  # 4 x 4 patches are few already
        (16, 4, {"first_epochs": 3}, (12, 12)),  # who asks for one gets the other
        (16, 4, {"first_size": (8,)}, (12, 12)),
        (32, 4, {"teacher": "resnet18"}, (32, 0)),
        (32, 4, {"first_epochs": 0}, (32, 0)),
        (32, 4, {"first_size": (32,)}, (32, 0)),
    ],
)
def test_first_epochs_have_smaller_images(side: int, patch: int, more: dict[str, Any], first: tuple[int, int]) -> None:
    values = small(facts(4000), asked(side, patch_size=patch, epochs=20, **more))
    assert (values["first_size"], values["first_epochs"]) == ((first[0], first[0]), first[1])


@pytest.mark.parametrize(
    ("recipe", "side", "more", "crop", "scale"),
    [
        (small, 64, {}, "shift", None),
        (small, 65, {}, "random_resized", 0.35),
        (small, 32, {"crop_scale": 0.5}, "random_resized", 0.6),  # of which what is asked for is kept
        (small, 32, {"crop": "random_resized"}, "random_resized", 0.6),
        (small, 128, {"crop": "none"}, "none", None),
        (finetune, 32, {}, "random_resized", 0.6),
        (finetune, 96, {}, "random_resized", 0.35),
    ],
)
def test_crop(recipe: Any, side: int, more: dict[str, Any], crop: str, scale: float | None) -> None:
    values = recipe(facts(4000), asked(side, **more))
    assert (values["crop"], values["crop_scale"]) == (crop, scale)


def test_default_optimiser() -> None:
    """Muon from scratch (docs/small-data.md); fine-tuning and the paper as they were measured and published."""
    assert [recipe(facts(4000), asked())["opt"] for recipe in (small, finetune, paper)] == ["muon", "adamw", "adamw"]


@pytest.mark.parametrize("images", [3, 4, 7, 16, 1000])
def test_paper_fits_small_data(images: int) -> None:
    batch = paper(facts(images), asked())["batch_size"]
    assert batch % 2 == 0
    assert 2 <= batch <= images // 3 * 3


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_makes_a_plan(name: RecipeName) -> None:
    got = plan(facts(36), recipe=name)
    values = RECIPES[name](got.facts, Asked(data="some", model=got.options.model, image_size=(16, 16), patch_size=4))
    if not (values["mixup"] or values["cutmix"]):
        values["mix_prob"] = 0.0
    assert {key: getattr(got.options, key) for key in values} == values
    assert got.options.recipe == name
    assert got.steps_per_epoch >= 1


def test_paper_reaches_all_that_it_decides() -> None:
    got = plan(facts(36), recipe="paper")
    assert (got.preprocess.crop_pct, got.options.warmup_lr, got.model_args["locality_strength"]) == (0.875, 1e-6, 1.0)
    assert (got.augmentation.random_erasing, got.augmentation.scale) == (0.25, 0.08)
    assert (got.batch_size, got.steps_per_epoch) == (36, 1)


def test_every_recipe_tells_command_source_cost_and_what_to_expect() -> None:
    for recipe in RECIPES.values():
        text = recipe.__doc__ or ""
        assert all(re.search(word, text) for word in ("Command: ``convit train", "Source:", "Cost:", "Expected"))
