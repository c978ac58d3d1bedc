"""``convit train`` from the command line: what it says, and that it ends where it should."""

import json
from pathlib import Path

import numpy as np
import pytest

from convit.cli import train as command
from convit.train import Stopped
from tests.cli.command import SMALL, Shell, photos


def test_says_what_it_decided(animals: Path, tmp_path: Path, shell: Shell) -> None:
    got = shell("train", animals, "--out", tmp_path / "run", *SMALL)
    assert (got.status, got.err) == (0, "")
    for words in (
        "animals: 3 classes, 15 to learn from, 3 to validate",
        "  --batch-size: 8 (15 training images)",
        "epoch 1/1  loss ",
        "best epoch 1: validation top-1",
        f"run folder {tmp_path / 'run'}",
    ):
        assert words in got.out
    logged = (tmp_path / "run/log.txt").read_text()
    assert "--batch-size: 8" in logged
    assert "epoch 1/1: train loss" in logged


def test_metrics_tell_how_far_every_head_looks(trained: Path) -> None:
    (line,) = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    far = np.array(line["non_locality"])
    assert far.shape == (4, 9)  # layers, heads
    assert far.min() > 0
    assert far.max() < np.sqrt(2)  # of 2 x 2 patches
    assert len(line["gates"]) == 3


def test_default_folder_and_overwrite(tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "pets", {"cat": 3, "[bold]dog": 3})
    assert shell("train", "pets", *SMALL).status == 0
    assert (tmp_path / "runs/pets-micro/model.safetensors").exists()
    assert shell("train", "pets", *SMALL).status == 2
    assert shell("train", "pets", *SMALL, "--overwrite", "--seed", 3).status == 0
    assert "seed: 3" in (tmp_path / "runs/pets-micro/config.yaml").read_text()
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["pets-micro"]
    config = json.loads((tmp_path / "runs/pets-micro/config.json").read_text())
    assert config["pretrained_cfg"]["label_names"] == ["[bold]dog", "cat"]


@pytest.mark.parametrize("signum", [2, 15])
def test_stopped_run_says_how_to_go_on(signum: int, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def stops(*_: object) -> None:
        raise Stopped(signum, Path("runs/x"))

    monkeypatch.setattr(command, "train", stops)
    got = shell("train", "digits")
    assert got.status == 128 + signum
    assert "the state is saved in runs/x" in got.out
    assert "--out runs/x and --resume" in got.out


def test_interrupted_before_there_is_a_state(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "train", interrupted)
    assert shell("train", "digits") == (130, "", "convit train: interrupted\n")
    monkeypatch.setattr("importlib.import_module", interrupted)
    assert shell("train", "digits") == (130, "", "convit train: interrupted\n")
