"""The examples run. ``digit_images.py`` runs with the README's own example."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from convit.grid import Grid
from convit.layers.init import convolutional_pos_weight
from convit.ops.naive import positional_map

FOLDER = Path(__file__).parent.parent / "examples"


def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_segmentation(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module = example("segmentation")
    monkeypatch.setattr(module, "STEPS", 30)
    monkeypatch.setattr(sys, "argv", ["segmentation.py"])
    module.main()
    ink = capsys.readouterr().out.splitlines()[1]
    assert float(ink.split()[-1].rstrip("%")) > 60  # ink or paper is soon learned, also from an untrained ConViT


def test_another_positional_function(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module = example("positional_table")
    grid = Grid(3, 5)
    layer = module.TableAttention(dim=36, num_heads=9, grid=grid)
    start = positional_map(convolutional_pos_weight(9, 1.0), grid, torch.float32)
    torch.testing.assert_close(layer.positional(), start)
    monkeypatch.setattr(module, "STEPS", 40)
    module.main()
    learned, *layers = capsys.readouterr().out.splitlines()
    assert float(learned.split("%")[0]) > 50
    assert len(layers) == 3
