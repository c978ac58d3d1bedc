"""Runs on photos that are larger than the model's input: the same bits with and without copies of them on disk."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convit.data.packs import cache_folder
from convit.events import Event, PassBegan, Said
from convit.training import Stopped
from convit.training.run import train
from tests.training.small import StopAt, exact, options, resume

MORE: dict[str, Any] = {"first_epochs": 1, "first_size": (4,), "rand_augment": "rand-m6-mstd0.5-inc1"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 JPEGs to learn from that decode at an eighth, and 2 to validate."""
    root = tmp_path_factory.mktemp("data") / "animals"
    rng = np.random.default_rng(0)
    for name in ("ape", "bee"):
        (root / name).mkdir(parents=True)
        for i in range(9):
            Image.fromarray(rng.integers(0, 256, (150, 130, 3), dtype=np.uint8)).save(root / name / f"{i}.jpg")
    return root


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def passes(events: list[Event]) -> dict[str, int]:
    return {event.what: event.images for event in events if isinstance(event, PassBegan) and "images" in event.what}


def test_same_bits_with_and_without_at_any_number_of_workers(data: Path, tmp_path: Path) -> None:
    first, second, without = [], [], []
    train(options(data, tmp_path / "first", **MORE), first.append)
    assert passes(first)["checking images"] == 18
    train(options(data, tmp_path / "second", workers=2, **MORE), second.append)
    assert not any("checking" in what or "decoding" in what for what in passes(second))
    train(options(data, tmp_path / "without", workers=5, cache_gb=0, **MORE), without.append)
    assert passes(without)["checking images"] == 18
    assert exact(tmp_path / "first") == exact(tmp_path / "second") == exact(tmp_path / "without")


def test_resumed_with_the_copies_gone(data: Path, tmp_path: Path) -> None:
    train(options(data, tmp_path / "whole", **MORE))
    with pytest.raises(Stopped):
        train(options(data, tmp_path / "run", **MORE), StopAt("epoch 2/2", 1))
    shutil.rmtree(cache_folder())
    heard: list[Event] = []
    train(resume(tmp_path / "run"), heard.append)
    assert passes(heard)["decoding images"] == 18
    assert exact(tmp_path / "run") == exact(tmp_path / "whole")


def test_a_run_measures_what_predict_answers(data: Path, tmp_path: Path) -> None:
    """Its validation images are copies, those of predict are files."""
    run = train(options(data, tmp_path / "run", crop_pct=0.8, val_fraction=0.5, **MORE))
    names = json.loads((run.folder / "split.json").read_text())["val"]
    answers = run.classifier.probabilities([data / name for name in names]).numpy()
    of_class = [row[("ape", "bee").index(Path(name).parent.name)] for name, row in zip(names, answers, strict=True)]
    assert len(names) == run.evaluation.num_images == 8
    assert run.evaluation.loss == pytest.approx(-np.log(of_class).mean(), rel=1e-5)


def test_a_file_without_its_copy_that_breaks_is_named(data: Path, tmp_path: Path) -> None:
    own = shutil.copytree(data, tmp_path / "animals")
    (own / "ape/3.jpg").write_bytes(b"")
    heard: list[Event] = []
    train(options(own, tmp_path / "run", skip_bad=True, **MORE), heard.append)
    assert passes(heard)["checking images"] == 18
    assert any("left out 1 files that do not decode" in e.text for e in heard if isinstance(e, Said))
    assert "ape/3.jpg" in (tmp_path / "run/skipped.json").read_text()
