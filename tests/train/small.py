"""Runs of a second: random pictures of 8 x 8 pixels, a micro model on 2 x 2 patches."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from PIL import Image
from torch import Tensor

from convit.train import (
    AugmentConfig,
    DataConfig,
    DistillConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    TrainConfig,
)

TIMINGS = ("seconds", "images_per_second")


def photos(root: Path, counts: dict[str, int], size: tuple[int, int] = (8, 8)) -> Path:
    """A folder of classes; each class has a brightness, and every picture its own noise."""
    rng = np.random.default_rng(0)
    for label, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 80, (size[1], size[0], 3)) + label * 170 // max(1, len(counts) - 1)
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i}.png")
    return root


def options(data: Path | str, out: Path | None = None, **more: Any) -> TrainConfig:
    """The options of a small run; ``more`` are options by name, whichever group they belong to."""
    values: dict[str, Any] = {"model": "convit_micro_patch4_32", "image_size": (8,), "patch_size": 4, "workers": 0}
    values |= {"epochs": 2, "batch_size": 4, "out": out, "device": "cpu"} | more
    groups = {"source": DataConfig, "model": ModelConfig, "optim": OptimConfig, "augment": AugmentConfig}
    groups |= {"distill": DistillConfig}
    chosen = {
        group: cls(**{name: values.pop(name) for name in list(values) if name in cls.__slots__})
        for group, cls in (groups | {"run": RunConfig}).items()
    }
    assert not values, f"no such option: {values}"
    return TrainConfig(data=str(data), **chosen)


def weights(run: Path) -> dict[str, Tensor]:
    """The best model's weights."""
    return safetensors.torch.load_file(run / "model.safetensors")


def newest_state(run: Path) -> Path:
    """The folder of the newest state."""
    return max((run / "checkpoints").iterdir())


def exact(run: Path) -> tuple[bytes, bytes, list[dict[str, Any]]]:
    """All that must be the same in two runs that are the same: last state, best model, metrics but for the timings."""
    return (
        (newest_state(run) / "tensors.safetensors").read_bytes(),
        (run / "model.safetensors").read_bytes(),
        [{key: value for key, value in record.items() if key not in TIMINGS} for record in metrics(run)],
    )


def metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl``."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
