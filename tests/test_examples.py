"""The examples run. ``digit_images.py`` runs with the README's own example."""

import importlib.util
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "examples"


def test_segmentation(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("segmentation", FOLDER / "segmentation.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "STEPS", 30)
    monkeypatch.setattr(sys, "argv", ["segmentation.py"])
    module.main()
    ink = capsys.readouterr().out.splitlines()[1]
    assert float(ink.split()[-1].rstrip("%")) > 60  # ink or paper is soon learned, also from an untrained ConViT
