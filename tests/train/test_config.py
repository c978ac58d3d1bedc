"""Options: to YAML and back, and what is refused."""

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml

from convit.errors import InputError
from convit.train import (
    AugmentConfig,
    DataConfig,
    DistillConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    TrainConfig,
    config,
)


def documented(module: Any) -> dict[str, dict[str, bool]]:
    """By class and field, whether a docstring stands under the field."""
    found: dict[str, dict[str, bool]] = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for entry, after in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(entry, ast.AnnAssign) and isinstance(entry.target, ast.Name):
                text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                found.setdefault(node.name, {})[entry.target.id] = text
    return found


def test_every_option_is_documented() -> None:
    by_class = documented(config)
    groups = ("Data", "Model", "Optim", "Augment", "Distill", "Run", "Train")
    assert by_class.keys() == {f"{group}Config" for group in groups}
    for name, entries in by_class.items():
        missing = {field for field, text in entries.items() if not text} - {
            "source",
            "model",
            "optim",
            "augment",
            "distill",
            "run",
        }
        if name != "TrainConfig":
            missing = {field for field, text in entries.items() if not text}
        assert not missing, f"{name} without a docstring: {missing}"


def full() -> TrainConfig:
    """Every option at a value that is not its default."""
    return TrainConfig(
        data="bilder/ä $x",
        source=DataConfig(
            val_fraction=0.25, fraction=0.5, classes=2, data_root=Path("d"), skip_bad=True, workers=3,
            balanced_sampling=True, skip_test=True,
        ),
        model=ModelConfig(
            model="m", image_size=(32, 48), patch_size=4, local_up_to_layer=0, drop_path=0.0,
            weights=Path("w.pth"), freeze=1, crop_pct=0.9, freeze_gates=True, freeze_gpsa=True,
            pool="avg",
        ),
        optim=OptimConfig(
            recipe="small", layer_decay=0.5, position_lr=3.0,
            epochs=3, batch_size=6, lr=1e-5, min_lr=0.0, warmup_epochs=0.5, weight_decay=0.1, clip_grad=0.0,
            precision="bf16", accumulate=2, warmup_lr=1e-7, ema_decay=0.9, ema_warmup=True, class_weights="balanced",
            patience=4, channels_last=True, compile=True,
        ),
        augment=AugmentConfig(
            flip=False, crop="shift", crop_scale=0.5, rand_augment="", color_jitter=0.1, random_erasing=0.2,
            mixup=0.0, cutmix=0.3, mix_prob=1.0, label_smoothing=0.0, repeated_augmentation=2,
        ),
        distill=DistillConfig(
            teacher="resnet18", teacher_weights=Path("t.pth"), distillation="soft", distillation_alpha=0.7,
            distillation_temperature=1.5,
        ),
        run=RunConfig(out=Path("runs/x"), seed=7, device="cpu", resume=True, save_minutes=0.5, parallel="fsdp"),
    )  # fmt: skip


@pytest.mark.parametrize("given", [TrainConfig(data="digits"), full()])
def test_round_trip_through_yaml(given: TrainConfig) -> None:
    text = yaml.safe_dump(given.to_dict(), allow_unicode=True)
    assert TrainConfig.from_dict(yaml.safe_load(text)) == given


def test_full_differs_from_the_defaults_everywhere() -> None:
    """Else the round trip above could lose an option and not notice."""
    default, other = TrainConfig(data="digits").to_dict(), full().to_dict()
    same = [f"{g}.{k}" for g in default if g != "data" for k in default[g] if default[g][k] == other[g][k]]
    from_scratch = {f"model.{name}" for name in ("locality_strength", "heads", "stem", "norm", "gate_start")}
    from_scratch |= {"model.weight_start", "model.position_embedding"}
    excluded = {"source.per_class", "model.pretrained", "model.ungated", "model.random_start", "run.overwrite"}
    assert set(same) == excluded | from_scratch  # by others


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"data": "d", "optin": {}}, "config: unknown key 'optin'; did you mean 'optim'?"),
        ({"data": "d", "optim": {"epoch": 3}}, "config.optim: unknown key 'epoch'; did you mean 'epochs'?"),
        ({"data": "d", "optim": {1: 3}}, "config.optim: unknown key 1"),
        ({"data": "d", "optim": {"epochs": "3"}}, "config.optim.epochs: got '3', expected int"),
        ({"data": "d", "optim": {"epochs": True}}, "config.optim.epochs: got True, expected int"),
        ({"data": "d", "optim": {"epochs": 2.0}}, "config.optim.epochs: got 2.0, expected int"),
        ({"data": "d", "optim": {"accumulate": None}}, "config.optim.accumulate: got None, expected int"),
        ({"data": "d", "optim": {"precision": "fp8"}}, "config.optim.precision: got 'fp8'"),
        ({"data": "d", "optim": {"recipe": "large"}}, "config.optim.recipe: got 'large'"),
        ({"data": "d", "augment": {"flip": "yes"}}, "config.augment.flip: got 'yes', expected bool"),
        ({"data": "d", "model": {"image_size": 32}}, "config.model.image_size: got 32"),
        ({"data": "d", "model": {"image_size": ["32"]}}, r"config.model.image_size: got \['32'\]"),
        ({"data": "d", "run": {"out": 5}}, "config.run.out: got 5, expected Path"),
        ({"data": "d", "run": []}, r"config.run: got \[\], expected keys and values"),
        ({"data": 5}, "config.data: got 5, expected str"),
        ({}, "config: no key 'data'"),
        (None, "config: got None, expected keys and values"),
    ],
)
def test_unknown_keys_and_wrong_types(values: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainConfig.from_dict(values)


RANGES: list[tuple[type, str, list[Any], list[Any]]] = [
    (DataConfig, "val_fraction", [0.01, 0.9], [0.0, 0.91, float("nan")]),
    (DataConfig, "workers", [0], [-1]),
    (ModelConfig, "image_size", [(1,), (8, 9)], [(), (0,), (8, -8), (8, 8, 8)]),
    (ModelConfig, "patch_size", [1], [0]),
    (ModelConfig, "crop_pct", [0.1, 1.0], [0.0, 1.1]),
    (ModelConfig, "drop_path", [0.0, 0.9], [-0.1, 0.91]),
    (ModelConfig, "local_up_to_layer", [0, 12], [-1]),
    (ModelConfig, "locality_strength", [0.1], [0.0, -1.0, float("nan"), float("inf")]),
    (OptimConfig, "epochs", [1], [0, -3]),
    (OptimConfig, "batch_size", [2, 64], [0, 1, 3, 63]),
    (OptimConfig, "lr", [1e-9], [0.0, -1e-3, float("nan"), float("inf")]),
    (OptimConfig, "clip_grad", [0.0, 1e-9], [-1.0, float("nan"), float("inf")]),
    (OptimConfig, "accumulate", [1], [0]),
    (OptimConfig, "patience", [1], [0]),
    (OptimConfig, "ema_decay", [0.0, 0.9998], [-0.1, 1.0, float("nan")]),
    (OptimConfig, "warmup_lr", [0.0, 1.0], [-1e-9, float("nan"), float("inf")]),
    (OptimConfig, "min_lr", [0.0, 1.0], [-1e-9, 1.1, float("nan")]),
    (OptimConfig, "weight_decay", [0.0, 1.0], [-1e-9, 1.1]),
    (OptimConfig, "warmup_epochs", [0.0], [-1.0, float("inf"), float("nan")]),
    (AugmentConfig, "crop_scale", [0.01, 1.0], [0.0, -0.1, 1.1]),
    (AugmentConfig, "color_jitter", [0.0, 1.0], [-0.1, 1.1]),
    (AugmentConfig, "random_erasing", [0.0, 1.0], [-0.1, 1.1]),
    (AugmentConfig, "mix_prob", [0.0, 1.0], [-0.1, 1.1]),
    (AugmentConfig, "label_smoothing", [0.0, 0.99], [-0.1, 1.1]),
    (AugmentConfig, "mixup", [0.0, 100.0], [-0.1, 101.0, float("nan")]),
    (AugmentConfig, "cutmix", [0.0, 100.0], [-0.1, 101.0]),
    (AugmentConfig, "repeated_augmentation", [1], [0]),
    (RunConfig, "seed", [0], [-1]),
    (RunConfig, "save_minutes", [0.1], [0.0, -1.0, float("inf")]),
]


@pytest.mark.parametrize(("cls", "name", "good", "bad"), RANGES, ids=[row[1] for row in RANGES])
def test_ranges(cls: type, name: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        assert getattr(cls(**{name: value}), name) == value
    for value in bad:
        with pytest.raises(InputError, match=f"^{name.replace('_', '-')}: got .*, expected "):
            cls(**{name: value})


def test_resume_and_overwrite_exclude_each_other() -> None:
    with pytest.raises(InputError, match="--resume and --overwrite: got both"):
        RunConfig(resume=True, overwrite=True)
