"""Results that no run made, and a program that makes run folders without training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from convit import Classifier, create_model
from convit.data import Preprocess
from convit.experiments.results import Result

PROGRAM = Path(__file__).with_name("made_cell.py")
MICRO = "convit_micro_patch4_16"


def made(
    variant: str,
    seed: int,
    top1: float,
    *,
    labels: Mapping[str, Any] | None = None,
    measured: Mapping[str, float] | None = None,
    history: Sequence[Mapping[str, Any]] = (),
    split: str = "test",
    folder: Path = Path(),
) -> Result:
    """A result of a model called m."""
    return Result(
        name=f"m-{variant}-seed_{seed}",
        labels={"model": "m", "variant": variant, "fraction": 1.0, **(labels or {})},
        seed=seed,
        split=split,
        images=50,
        top1=top1,
        top5=100.0,
        loss=0.5,
        val_top1=top1 - 1,
        best_epoch=2,
        epochs=3,
        shown=24_000,
        seconds=90.0,
        parameters=1_250_000,
        flops=40_000_000,
        measured=measured or {},
        config={"data": "d", "lr": 0.1, "seed": seed},
        history=tuple(history),
        folder=folder,
    )


def save_classifier(folder: Path, names: Sequence[str] = ("cat", "dog")) -> Classifier:
    """An untrained model for images of 8 x 8 pixels, and its files in a folder."""
    args = {"img_size": [8, 8]}
    model = create_model(MICRO, num_classes=len(names), **args).eval()
    made = Classifier(model, Preprocess(image_size=(8, 8)), names, model_name=MICRO, model_args=args)
    folder.mkdir(parents=True, exist_ok=True)
    made.save(folder)
    return made
