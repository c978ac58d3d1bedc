"""What is decided from the facts of the data, at values worked out by hand, and which options do not go together."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from timm.layers import HybridEmbed

from convit.data.select import Facts
from convit.errors import InputError
from convit.layers import GatedPositionalSelfAttention, TokenBatchNorm
from convit.models import create_model
from convit.options import make
from convit.training.model_choice import ModelChoice, choose_model
from convit.training.options import Asked
from convit.training.plan import Plan
from convit.training.planning import make_plan


def facts(images: int, classes: int = 2, side: int = 8, **more: Any) -> Facts:
    """Of so many images to learn from, as many of each class."""
    counts = tuple(images // classes + (i < images % classes) for i in range(classes))
    own = Facts(
        name="some",
        root="some",
        class_names=tuple(f"c{i}" for i in range(classes)),
        counts={"train": counts, "val": (1,) * classes},
        available=images,
        native_size=side,
        sides=(side, side),
        flip=True,
        left_out=0,
        ignored=0,
        notes=(),
    )
    return replace(own, **more)


def plan(found: Facts, processes: int = 1, **asked: Any) -> Plan:
    return make_plan(make(Asked, {"data": "some", **asked}), found, processes=processes)


def test_a_first_size_of_the_whole_image_is_none() -> None:
    """In one number or two, alone or with no epochs of it."""
    for more in ({"first_size": (32,)}, {"first_size": (32, 32)}, {"first_size": (32,), "first_epochs": 0}):
        made = plan(facts(2000), image_size=(32,), **more)
        assert (made.first_size, made.options.first_epochs) == ((32, 32), 0)


def choice(side: int, images: int, **asked: Any) -> ModelChoice:
    return choose_model(make(Asked, {"data": "d", **asked}), facts(images, side=side), None)


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
def test_the_model_follows_the_native_size(native: int, images: int, name: str, side: int, patch: int) -> None:
    got = choice(native, images)
    assert (got.name, got.args["img_size"], got.args["patch_size"]) == (name, [side, side], patch)
    assert got.reasons["model"] == f"{name} (the images' shorter side is {native} px in the median)"
    assert got.reasons.keys() == {"model", "image_size", "patch_size"}


def test_the_shape_that_is_asked_for() -> None:
    args = choice(
        32, 10, model="convit_micro_patch4_32", heads=4, stem="conv", pool="avg", norm="batch",
        position_embedding=False, gate_init=0.0, weight_init="fan_in", random_init=True, local_up_to_layer=1,
    ).args  # fmt: skip
    model = create_model("convit_micro_patch4_32", **args)
    assert isinstance(model.patch_embed, HybridEmbed)
    assert isinstance(model.blocks[2].norm1, TokenBatchNorm)
    assert (model.global_pool, model.pos_embed, model.local_up_to_layer) == ("avg", None, 1)
    attention = model.blocks[0].attn
    assert (type(attention), attention.num_heads) == (GatedPositionalSelfAttention, 4)
    assert (attention.conv_init, attention.weight_std, args["gate_init"]) == (False, "fan_in", 0.0)
    args = choice(32, 10, model="convit_micro_patch4_32", stem="patch", weight_init="published").args
    assert (args["hybrid_backbone"], args["weight_std"]) == ("patch", 0.02)


def test_a_shape_that_is_given_is_not_decided() -> None:
    args = {"img_size": [48, 32], "patch_size": 8, "local_up_to_layer": 3, "num_heads": 9}
    args |= {"hybrid_backbone": "patch", "global_pool": "token", "batch_norm": False, "gate_init": 1.0}
    args |= {"class_token": True, "mlp_ratio": 4.0}
    got = choice(300, 10, model="convit_micro_patch4_32", image_size=(48, 32), patch_size=8)
    assert (got.name, got.args, got.blocks, got.reasons) == ("convit_micro_patch4_32", args, 4, {})
    one_side = choice(300, 10, model="convit_micro_patch4_32", image_size=(48,))
    assert one_side.args == args | {"img_size": [48, 48], "patch_size": 4}


# batch: a sixteenth of the images as a power of two, 8 to 128; epochs: 1300 / sqrt(n), 10 to 200;
# rate of Muon: 0.0057 sqrt(batch / 64) to two digits
@pytest.mark.parametrize(
    ("images", "batch", "epochs", "lr"),
    [
        (2, 2, 200, 0.001),
        (5, 4, 200, 0.0014),
        (10, 8, 200, 0.002),
        (15, 8, 200, 0.002),
        (16, 8, 200, 0.002),
        (255, 8, 81, 0.002),
        (256, 16, 81, 0.0029),
        (1024, 64, 41, 0.0057),
        (4000, 128, 21, 0.0081),
        (90_000, 128, 10, 0.0081),
    ],
)
def test_batch_epochs_and_rate(images: int, batch: int, epochs: int, lr: float) -> None:
    got = plan(facts(images))
    o = got.options
    assert (got.batch_size, got.epochs, o.lr, o.warmup_epochs, o.warmup_lr) == (
        *(batch, epochs, lr, min(5, epochs / 10), lr / 100),
    )
    assert got.steps_per_epoch == images // batch
    assert {"batch_size", "epochs", "lr"} <= got.reasons.keys()


def test_a_rate_goes_with_the_batch_and_a_warm_up_with_the_epochs_that_were_asked_for() -> None:
    got = plan(facts(1024), batch_size=16, epochs=3).options
    assert (got.lr, got.warmup_epochs, got.warmup_lr) == (0.0029, 0.3, 0.0029 / 100)
    assert plan(facts(1024), lr=0.5).options.warmup_lr == 0.005


def test_nothing_is_left_open() -> None:
    options = plan(facts(36)).options.to_dict()
    assert [name for name, value in options.items() if value is None] == [
        *("train", "val", "test", "folds", "fold", "fraction", "per_class", "classes", "data_root", "full_scale"),
        *("heads", "stem", "pool", "norm", "position_embedding", "gate_init", "weight_init"),
        *("weights", "teacher", "teacher_weights", "minutes", "patience", "crop_scale", "save_minutes", "resume"),
    ]  # None has a meaning of its own there
    assert options["out"] == "runs/some-mini"


def test_what_is_given_is_kept_and_gets_no_reason() -> None:
    given = {
        "recipe": "finetune", "epochs": 3, "batch_size": 6, "lr": 0.5, "warmup_epochs": 1.0, "warmup_lr": 0.25,
        "min_lr": 0.1, "weight_decay": 0.2, "clip_grad": 0.0, "ema_decay": 0.9, "layer_decay": 0.9, "position_lr": 2.0,
        "drop_path": 0.3, "locality_strength": 3.0, "crop_pct": 0.5, "crop_scale": 0.9, "rand_augment": "rand-m1",
        "flip": False, "color_jitter": 0.1, "random_erasing": 0.2, "repeated_augmentation": 2, "mixup": 0.5,
        "cutmix": 0.25, "mix_prob": 0.75, "label_smoothing": 0.0, "workers": 3, "out": Path("there"),
        "model": "convit_micro_patch4_32", "image_size": (16, 32), "patch_size": 8, "local_up_to_layer": 2,
    }  # fmt: skip
    got = plan(facts(40), **given)
    assert {name: getattr(got.options, name) for name in given} == given
    assert got.reasons.keys() == {"augmentation"}
    assert (got.preprocess.image_size, got.preprocess.crop_pct) == ((16, 32), 0.5)
    assert (got.model_args["locality_strength"], got.model_args["img_size"]) == (3.0, [16, 32])
    assert (got.augmentation.scale, got.augmentation.flip, got.augmentation.rand_augment) == (0.9, False, "rand-m1")


def test_the_same_plan_from_its_own_options() -> None:
    """What ``config.yaml`` relies on: asked for all that was decided, the same is decided again."""
    first = plan(facts(100), fraction=0.5, seed=3)
    again = make_plan(first.options, facts(100))
    assert (again.options, again.model_args, again.fingerprint) == (first.options, first.model_args, first.fingerprint)
    assert Plan.from_dict(first.to_dict()).to_dict() == first.to_dict()


def test_fingerprint_counts_what_a_run_computes() -> None:
    def of(**asked: Any) -> str:
        return plan(facts(40), **asked).fingerprint

    assert of(out="a", workers=1, device="cpu", save_minutes=1.0) == of(out="b", workers=0, device="auto")
    assert len({of(), of(lr=0.1), of(seed=1), of(epochs=3), of(heads=4), of(mixup=0.1)}) == 6


def test_flip_unless_a_mirrored_image_is_another_class() -> None:
    assert plan(facts(40)).augmentation.flip
    assert not plan(facts(40, flip=False)).augmentation.flip
    assert plan(facts(40, flip=False), flip=True).augmentation.flip


def test_workers_only_where_they_pay() -> None:
    assert plan(facts(4)).options.workers == 0
    assert plan(facts(4, side=128)).options.workers
    assert plan(facts(4, side=128), workers=3).options.workers == 3


def test_images_are_reduced_as_far_as_the_smallest_crop_allows() -> None:
    assert plan(facts(4, side=300), image_size=(128,), crop_scale=0.25).side == 256
    assert plan(facts(4, side=300), image_size=(96, 128), crop="none").side == 128


def test_a_fraction_shows_as_many_images_as_all() -> None:
    """Table 2 of the paper: a tenth of each class, ten times the epochs."""
    assert plan(facts(1800)).epochs == 31
    assert plan(facts(180, available=1800), fraction=0.1).epochs == 310
    assert plan(facts(180, available=1800), fraction=0.1, epochs=7).epochs == 7
    assert plan(facts(40, available=1800), per_class=20).epochs == 200  # the recipe's for 40 images


def test_without_mixing_no_batch_is_mixed() -> None:
    assert plan(facts(40)).options.mix_prob == 0.0
    assert plan(facts(40), mixup=0.2).options.mix_prob == 0.5


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"model": "convit_tiny_patch16_225"}, r"got 'convit_tiny_patch16_225'.*did you mean 'convit_tiny_patch16_224'"),
    ({"model": "convit_micro_patch4_32", "heads": 5}, r"^heads: got 5 for a width of 144, expected a divisor"),
    ({"image_size": (30,), "patch_size": 8}, r"got 30 x 30, expected multiples of the patch size 8; nearest: 24 x 24"),
    ({"local_up_to_layer": 7}, "local-up-to-layer: got 7, expected 0 to the depth, 4"),
    ({"rand_augment": "random"}, "rand_augment: got 'random', expected timm's form"),
    ({"weights": "run"}, "weights: no such file or folder run"),
    ({"overwrite": True, "resume": "run"}, "overwrite and resume: got both"),
    ({"freeze": 1}, "freeze: got 1 for a start from scratch, expected --pretrained or --weights too"),
    ({"freeze": 13, "pretrained": True}, "freeze: got 13, expected at most the 12 blocks of the model"),
    ({"heads": 4, "pretrained": True}, "heads: got it with --pretrained or --weights, expected a start from scratch"),
    ({"position_embedding": False, "pretrained": True}, "position-embedding: got it with --pretrained"),
    ({"random_init": True, "pretrained": True}, "random-init: got it with --pretrained"),
    ({"ungated": True, "freeze_gates": True}, "ungated and freeze-gates: got both"),
    ({"ungated": True, "gate_init": 1.0}, "ungated and gate-init: got both"),
    ({"freeze_gates": True, "gate_init": 0.0}, "freeze-gates and gate-init: got both"),
    ({"freeze_gpsa": True, "position_lr": 3.0}, "freeze-gpsa and position-lr: got both"),
    ({"local_up_to_layer": 0, "gate_init": 1.0}, "gate-init: got it for a model without GPSA"),
    ({"local_up_to_layer": 0, "random_init": True}, "random-init: got it for a model without GPSA"),
    ({"local_up_to_layer": 0, "position_lr": 3.0}, "position-lr: got it for a model without GPSA"),
    ({"distillation": "soft"}, "distillation: got it without a teacher"),
    (
        {"teacher": "resnet18", "distillation_temperature": 2.0},
        "distillation-temperature: got 2 with hard distillation",
    ),
    ({"batch_size": 42}, "batch-size: got 42, expected at most the 40 training images"),
    ({"batch_size": 40, "repeated_augmentation": 3}, "repeated-augmentation: got 3, with which an epoch of 40"),
    ({"batch_size": 10, "processes": 2}, "batch-size: got 10 for 2 processes.*: 8 or 12"),
    ({"batch_size": 8, "accumulate": 9}, "accumulate: got 9, expected at most the 8 images"),
    ({"batch_size": 8, "accumulate": 5, "processes": 2}, "accumulate: got 5, expected at most the 4 images"),
    ({"accumulate": 2, "norm": "batch"}, "accumulate: got 2 for a model with batch norm"),
    ({"epochs": 3, "warmup_epochs": 4.0}, "warmup-epochs: got 4, expected at most the 3 epochs"),
    ({"mix_prob": 0.5}, "mix-prob: got 0.5 without mixing, expected --mixup or --cutmix above 0 too"),
    ({"mix_prob": 0.0, "mixup": 0.2}, "mix-prob: got 0 with --mixup or --cutmix above 0"),
]


@pytest.mark.parametrize(("asked", "message"), REFUSED, ids=["-".join(asked) for asked, _ in REFUSED])
def test_options_that_do_not_fit(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        plan(facts(40), **asked)
    assert "\n" not in str(caught.value)


def test_twenty_rules_let_a_usual_run_through() -> None:
    plan(facts(40), processes=2, batch_size=8, accumulate=2, norm="layer", mixup=0.2, freeze_gates=True)


def test_a_run_folder_lies_apart_from_the_images(tmp_path: Path) -> None:
    data = tmp_path / "photos"
    found = facts(40, root=str(data))
    for out in (data, data / "run", tmp_path):
        with pytest.raises(InputError, match=r"out: got .*, which lies together with the images"):
            plan(found, out=out)
    plan(found, out=tmp_path / "run")
