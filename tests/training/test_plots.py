"""Every picture is drawn, whatever the number of epochs and the names of the classes."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from convit.training import plots
from convit.training.evaluation import Evaluation, score

pytestmark = pytest.mark.pictures

HARD_NAMES = ("$\\frac$", "a_$x_{$", "€ ünïcode", "x" * 60, "two\nlines", "", "50% & #1", "a$b$c")


def record(epoch: int, layers: int = 5, heads: int = 9) -> dict[str, Any]:
    gates = [[0.5 + 0.01 * epoch] * heads for _ in range(layers)]
    return {"epoch": epoch, "train_loss": 1.0, "val_loss": 1.0, "val_top1": epoch, "val_top5": 90.0, "gates": gates}


def result(names: tuple[str, ...]) -> Evaluation:
    logits = torch.randn(3 * len(names), len(names))
    return score(logits, np.arange(3 * len(names)) % len(names), names)


def is_picture(path: Path, least: tuple[int, int]) -> bool:
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert image.convert("L").getextrema()[0] < 100, "an empty picture"
        return image.width >= least[0] and image.height >= least[1] and max(image.size) < 4000


@pytest.mark.parametrize("epochs", [1, 2, 30])
def test_history(epochs: int, tmp_path: Path) -> None:
    plots.draw_history([record(epoch) for epoch in range(1, epochs + 1)], tmp_path, print)
    assert is_picture(tmp_path / "curves.png", (900, 300))
    assert is_picture(tmp_path / "gates.png", (900, 200))
    assert {path.name for path in tmp_path.iterdir()} == {"curves.png", "gates.png"}


@pytest.mark.parametrize("layers", [1, 6, 12])
def test_panels_of_the_gates(layers: int, tmp_path: Path) -> None:
    plots.gates([record(1, layers, heads=1), record(2, layers, heads=1)], tmp_path / "gates.png")
    assert is_picture(tmp_path / "gates.png", (200, 200))


def test_no_epoch_and_no_gate(tmp_path: Path) -> None:
    plots.draw_history([], tmp_path, print)
    assert not list(tmp_path.iterdir())
    plots.draw_history([record(1, layers=0)], tmp_path, print)
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


@pytest.mark.parametrize("names", [*((name, "other") for name in HARD_NAMES), HARD_NAMES])
def test_class_names_are_no_formulas(names: tuple[str, ...], tmp_path: Path) -> None:
    shown = result(names)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.confusion(shown, tmp_path / "confusion.png", title="a_$x_{$ $y$")
    assert is_picture(tmp_path / "confusion.png", (500, 400))


@pytest.mark.parametrize("classes", [20, 40, 50])
def test_many_classes(classes: int, tmp_path: Path) -> None:
    plots.confusion(result(tuple(f"class {i}" for i in range(classes))), tmp_path / "confusion.png", title="t")
    assert is_picture(tmp_path / "confusion.png", (1000, 1000))
    with Image.open(tmp_path / "confusion.png") as image:
        assert image.width <= 1400  # at 800 px letters of 8 points are still of 8 px
