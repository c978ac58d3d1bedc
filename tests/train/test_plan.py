"""What is decided from the data, at values worked out by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from timm.layers import HybridEmbed

from convit.data import ArrayImages, DataSource
from convit.errors import InputError
from convit.layers import GatedPositionalSelfAttention, TokenBatchNorm
from convit.models import create_model
from convit.train import AugmentConfig, DataConfig, ModelConfig, OptimConfig, TrainConfig
from convit.train.geometry import geometry
from convit.train.plan import Plan, make_plan, split
from tests.train.small import options


def source(per_class: int, classes: int = 2, side: int = 8, part: str = "whole", **more: Any) -> DataSource:
    """Black pictures."""
    count = per_class * classes
    names = tuple(f"c{i}" for i in range(classes))
    images = ArrayImages(
        np.zeros((count, side, side), np.uint8), [str(i) for i in range(count)], np.arange(count) % classes, names
    )
    return DataSource(name="some", root="some", class_names=names, parts={part: images}, **more)


def plan(data: DataSource, **groups: Any) -> Plan:
    config = TrainConfig(data="some", **groups)
    return make_plan(config, data, split(data, config.source.val_fraction, config.run.seed))


@pytest.mark.parametrize(
    ("native", "images", "name", "side", "patch"),
    [
        (8, 10, "convit_mini_patch4_16", 16, 4),
        (24, 10, "convit_mini_patch4_16", 16, 4),
        (25, 10, "convit_mini_patch4_32", 32, 4),
        (32, 50_000, "convit_mini_patch4_32", 32, 4),
        (64, 10, "convit_mini_patch8_64", 64, 8),
        (112, 10, "convit_mini_patch8_64", 64, 8),
        (113, 10, "convit_mini_patch8_128", 128, 8),
        (300, 19_999, "convit_mini_patch8_128", 128, 8),
        (300, 20_000, "convit_tiny_patch16_224", 224, 16),
    ],
)
def test_geometry_follows_the_native_size(native: int, images: int, name: str, side: int, patch: int) -> None:
    got, args, decided = geometry(TrainConfig(data="d"), native, images)
    assert (got, args["img_size"], args["patch_size"]) == (name, [side, side], patch)
    assert decided["model"] == f"{name} (the images' shorter side is {native} px in the median)"
    assert decided.keys() == {"model", "image-size", "patch-size"}


def test_the_shape_that_is_asked_for() -> None:
    asked = ModelConfig(
        model="convit_micro_patch4_32", heads=4, stem="conv", pool="avg", norm="batch", position_embedding=False,
        gate_start=0.0, weight_start="fan_in", random_start=True, local_up_to_layer=1,
    )  # fmt: skip
    args = geometry(TrainConfig(data="d", model=asked), 32, 10)[1]
    model = create_model("convit_micro_patch4_32", **args)
    assert isinstance(model.patch_embed, HybridEmbed)
    assert isinstance(model.blocks[2].norm1, TokenBatchNorm)
    assert (model.global_pool, model.pos_embed, model.local_up_to_layer) == ("avg", None, 1)
    attention = model.blocks[0].attn
    assert (type(attention), attention.num_heads) == (GatedPositionalSelfAttention, 4)
    assert (attention.conv_init, attention.weight_std, args["gate_init"]) == (False, "fan_in", 0.0)
    back = ModelConfig(model="convit_micro_patch4_32", stem="patch", weight_start="published")
    args = geometry(TrainConfig(data="d", model=back), 32, 10)[1]
    assert (args["hybrid_backbone"], args["weight_std"]) == ("patch", 0.02)


def test_heads_that_do_not_divide_the_width() -> None:
    with pytest.raises(InputError, match=r"^heads: got 5 for a width of 144, expected a divisor of the width"):
        geometry(TrainConfig(data="d", model=ModelConfig(model="convit_micro_patch4_32", heads=5)), 32, 10)


def test_geometry_that_is_given_is_not_decided() -> None:
    asked = ModelConfig(model="convit_micro_patch4_32", image_size=(48, 32), patch_size=8)
    args = {"img_size": [48, 32], "patch_size": 8, "local_up_to_layer": 3, "num_heads": 9}
    args |= {"hybrid_backbone": "patch", "global_pool": "token", "batch_norm": False, "gate_init": 1.0}
    assert geometry(TrainConfig(data="d", model=asked), 300, 10) == ("convit_micro_patch4_32", args, {})
    one_side = ModelConfig(model="convit_micro_patch4_32", image_size=(48,))
    assert geometry(TrainConfig(data="d", model=one_side), 300, 10)[1] == args | {"img_size": [48, 48], "patch_size": 4}


def test_unknown_model_names_the_nearest() -> None:
    asked = TrainConfig(data="d", model=ModelConfig(model="convit_tiny_patch16_225"))
    with pytest.raises(InputError, match=r"got 'convit_tiny_patch16_225'.*did you mean 'convit_tiny_patch16_224'"):
        geometry(asked, 8, 10)


# batch: a sixteenth of the images as a power of two, 8 to 128; epochs: 1300 / sqrt(n), 10 to 200;
# rate: 0.002 sqrt(batch / 64) to two digits
@pytest.mark.parametrize(
    ("images", "batch", "epochs", "lr"),
    [
        (2, 2, 200, 0.00035),
        (5, 4, 200, 0.0005),
        (10, 8, 200, 0.00071),
        (15, 8, 200, 0.00071),
        (16, 8, 200, 0.00071),
        (255, 8, 81, 0.00071),
        (256, 16, 81, 0.001),
        (1024, 64, 41, 0.002),
        (4000, 128, 21, 0.0028),
        (90_000, 128, 10, 0.0028),
    ],
)
def test_batch_epochs_and_rate(images: int, batch: int, epochs: int, lr: float) -> None:
    whole = source(images, classes=1, side=1)
    got = make_plan(options("d", epochs=None, batch_size=None), whole, (whole.whole, whole.whole, None))
    assert (got.batch_size, got.epochs, got.lr) == (batch, epochs, lr)
    assert (got.values.warmup_epochs, got.warmup_lr) == (min(5, epochs / 10), lr / 100)
    assert got.steps_per_epoch == images // batch
    assert {"batch-size", "epochs", "lr"} <= got.decided.keys()
    assert (got.config.optim.batch_size, got.config.optim.epochs, got.config.optim.lr) == (batch, epochs, lr)


def test_nothing_is_left_open() -> None:
    config = plan(source(20)).config.to_dict()
    open_ = [f"{g}.{k}" for g in config if g != "data" for k, v in config[g].items() if v is None]
    assert open_ == [
        "source.fraction",
        "source.per_class",
        "source.classes",
        "source.data_root",
        *(f"model.{name}" for name in ("heads", "stem", "pool", "norm")),
        *(f"model.{name}" for name in ("position_embedding", "gate_start", "weight_start")),
        "model.weights",
        "optim.patience",
        "distill.teacher",
        "distill.teacher_weights",
        "run.save_minutes",
    ]  # None has a meaning of its own there
    assert config["run"]["out"] == "runs/some-mini"


def test_given_values_are_kept() -> None:
    optim = OptimConfig(
        recipe="finetune",
        epochs=3,
        batch_size=6,
        lr=0.5,
        warmup_epochs=1.0,
        warmup_lr=0.25,
        layer_decay=0.9,
        position_lr=2.0,
        min_lr=0.01,
        weight_decay=0.2,
        clip_grad=0.0,
        ema_decay=0.99,
    )
    got = plan(source(20), optim=optim, augment=AugmentConfig(flip=True, crop="none", rand_augment="", cutmix=0.5))
    assert (got.config.optim, got.config.augment.cutmix, got.augmentation.crop) == (optim, 0.5, "none")
    assert got.augmentation.flip
    assert not {"epochs", "batch-size", "lr", "flip"} & got.decided.keys()


@pytest.mark.parametrize(
    ("side", "scale", "rand", "cutmix"),
    [
        (8, 0.6, "", 0.0),
        (32, 0.6, "", 0.0),
        (64, 0.6, "", 0.0),
        (128, 0.35, "rand-m6-mstd0.5-inc1", 1.0),
        (224, 0.35, "rand-m6-mstd0.5-inc1", 1.0),
    ],
)
def test_augmentation_by_size(side: int, scale: float, rand: str, cutmix: float) -> None:
    got = plan(source(4, side=side))
    assert (got.augmentation.scale, got.augmentation.rand_augment, got.config.augment.cutmix) == (scale, rand, cutmix)
    assert got.augmentation.crop == "random_resized"
    assert got.augmentation.flip
    assert not plan(source(4, flip=False)).augmentation.flip


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"optim": OptimConfig(batch_size=20)}, "batch-size: got 20, expected at most the 18 training images"),
        ({"optim": OptimConfig(epochs=3, warmup_epochs=4.0)}, "warmup-epochs: got 4, expected at most the 3 epochs"),
        (
            {"model": ModelConfig(image_size=(30,), patch_size=8)},
            r"got 30 x 30, expected multiples of the patch size 8; nearest: 24 x 24 or 32 x 32",
        ),
        ({"model": ModelConfig(local_up_to_layer=7)}, "local_up_to_layer: got 7, expected 0 to the depth, 4"),
        ({"augment": AugmentConfig(rand_augment="random")}, "rand_augment: 'random'; expected timm's form"),
    ],
)
def test_options_that_do_not_fit(groups: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan(source(10), **groups)


def test_odd_batch() -> None:
    with pytest.raises(InputError, match="batch-size: got 7, expected an even number"):
        OptimConfig(batch_size=7)


def test_flat_data_is_split_by_class() -> None:
    train, val, test = split(source(10, classes=3), 0.2, seed=0)
    assert (train.counts().tolist(), val.counts().tolist(), test) == ([8] * 3, [2] * 3, None)
    assert not set(train.names) & set(val.names)
    assert split(source(10, classes=3), 0.2, seed=1)[1].names != val.names


def test_official_parts_are_used() -> None:
    parts = {name: source(n, part=name).parts[name] for name, n in (("train", 5), ("val", 2), ("test", 3))}
    data = DataSource(name="x", root="x", class_names=("c0", "c1"), parts=parts)
    got = split(data, 0.5, seed=0)
    assert all(a is b for a, b in zip(got, parts.values(), strict=True))
    del parts["val"]  # then it comes from the training images; those of the test stay unseen
    train, val, test = split(data, 0.2, seed=0)
    assert (len(train), len(val), test) == (8, 2, parts["test"])


def test_nothing_to_learn_from_or_to_validate_on() -> None:
    with pytest.raises(InputError, match="some: only a test part in it; expected a train/ folder"):
        split(source(5, part="test"), 0.1, seed=0)
    with pytest.raises(InputError, match="some: one image per class, none left to validate on; expected at least 2"):
        split(source(1, classes=3), 0.1, seed=0)


def test_workers_and_cache() -> None:
    assert plan(source(4)).workers == 0  # small images, in memory
    assert plan(source(4)).cache
    assert not plan(source(4, side=128)).cache
    assert plan(source(4, side=128), source=DataConfig(workers=3)).workers == 3
    assert plan(source(4)).out == Path("runs/some-mini")


def test_fraction_shows_as_many_images_as_all() -> None:
    """Table 2 of the paper: a tenth of each class, ten times the epochs; what is validated on stays the same."""
    data = source(1000)  # 1800 to learn from: 31 epochs
    whole, tenth = plan(data), plan(data, source=DataConfig(fraction=0.1))
    assert (whole.epochs, tenth.epochs) == (31, 310)
    assert tenth.train.counts().tolist() == [90, 90]
    assert tenth.val.names == whole.val.names
    assert set(tenth.train.names) < set(whole.train.names)
    assert plan(data, source=DataConfig(fraction=0.1), optim=OptimConfig(epochs=7)).epochs == 7


def test_so_many_of_each_class() -> None:
    got = plan(source(100), source=DataConfig(per_class=20))
    assert got.train.counts().tolist() == [20, 20]
    assert got.epochs == 200  # the recipe's for 40 images
    with pytest.raises(InputError, match="per_class: 91; expected 1 to 90"):
        plan(source(100), source=DataConfig(per_class=91))
    with pytest.raises(InputError, match="--fraction and --per-class: got both, expected one of them"):
        DataConfig(fraction=0.1, per_class=3)
