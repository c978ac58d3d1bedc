"""One trained run for all commands."""

import contextlib
import io
import shutil
import sys
from pathlib import Path

import pytest

import convit_launcher
from tests.cli.command import SMALL, Shell, photos


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(capsys, monkeypatch)


@pytest.fixture(scope="session")
def animals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder without official splits; read only."""
    return photos(tmp_path_factory.mktemp("cli") / "animals", {"ape": 6, "bee": 5, "cow": 7})


@pytest.fixture(scope="session")
def trained(animals: Path) -> Path:
    """A run on them; read only."""
    out = animals.parent / "run"
    words = ["convit", "train", str(animals), "--out", str(out), "--lr", "0.002", *SMALL]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setattr(sys, "argv", words)
        assert convit_launcher.main() == 0
    return out


@pytest.fixture(scope="session")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its ONNX file; read only."""
    from convit.classifier_loading import load
    from convit.export import export_onnx

    return export_onnx(load(trained), tmp_path_factory.mktemp("onnx") / "model.onnx").path


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Pictures in two folders, one of them deep."""
    return photos(tmp_path / "album", {"a": 2, "b/deep": 2})


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run, without its states, to write into."""
    return Path(shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints")))
