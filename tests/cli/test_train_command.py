"""``convit train`` from the command line: what it says, that it ends where it should, and looks ahead."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from convit.cli import train as command
from convit.training import Stopped
from tests.cli.command import SMALL, Shell, photos, tree


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_says_what_it_decided(animals: Path, tmp_path: Path, shell: Shell) -> None:
    got = shell("train", animals, "--out", tmp_path / "run", *SMALL)
    assert (got.status, got.err) == (0, "")
    for words in (
        "animals: 3 classes, 15 to learn from, 3 to validate",
        "  --batch-size: 8 (15 training images)",
        "epoch 1/1  loss ",
        "about ",  # so long it will take
        "memory: ",
        "disk: up to ",
        "The best epoch is 1 of 1",
        "report.html: ",
        f"convit predict {tmp_path / 'run'} PHOTO.jpg",
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


def test_default_folder_and_overwrite(place: Path, shell: Shell) -> None:
    photos(place / "pets", {"cat": 3, "[bold]dog": 3})
    assert shell("train", "pets", *SMALL).status == 0
    assert (place / "runs/pets-micro/model.safetensors").exists()
    assert shell("train", "pets", *SMALL).status == 2
    assert shell("train", "pets", *SMALL, "--overwrite", "--seed", 3).status == 0
    assert "seed: 3" in (place / "runs/pets-micro/config.yaml").read_text()
    assert [p.name for p in (place / "runs").iterdir()] == ["pets-micro"]
    config = json.loads((place / "runs/pets-micro/config.json").read_text())
    assert config["pretrained_cfg"]["label_names"] == ["[bold]dog", "cat"]


def test_config_repeats_a_run(run: Path, tmp_path: Path, shell: Shell) -> None:
    """To the same bits; what is typed besides goes before it."""
    again, other = tmp_path / "again", tmp_path / "other"
    assert shell("train", "--config", run / "config.yaml", "--out", again).status == 0
    assert (again / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    assert shell("train", "--config", run / "config.yaml", "--out", other, "--seed", 1).status == 0
    assert (other / "model.safetensors").read_bytes() != (run / "model.safetensors").read_bytes()


@pytest.mark.parametrize("signum", [2, 15])
def test_stopped_run_says_how_to_go_on(signum: int, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def stops(*_: object, **__: object) -> None:
        raise Stopped(signum, Path("runs/x"))

    monkeypatch.setattr(command, "start", stops)
    got = shell("train", "digits")
    assert got.status == 128 + signum
    assert "the state is saved in runs/x" in got.out
    assert "continue with: convit train --resume runs/x" in got.out


def test_interrupted_before_there_is_a_state(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "start", interrupted)
    assert shell("train", "digits") == (130, "", "convit train: interrupted\n")
    monkeypatch.setattr("importlib.import_module", interrupted)
    assert shell("train", "digits") == (130, "", "convit train: interrupted\n")


# -- looks ahead -------------------------------------------------------------------------------------------------------


def test_dry_run(animals: Path, place: Path, shell: Shell) -> None:
    got = shell("train", animals, *SMALL, "--dry-run")
    assert (got.status, got.err) == (0, "")
    for words in ("15 to learn from, 3 to validate", "1 steps of 8 images in an epoch", "memory: ", "learning rate: "):
        assert words in got.out
    assert "nothing was trained or written" in got.out
    assert list(place.iterdir()) == []


def test_dry_run_leaves_a_run_as_it_is(animals: Path, run: Path, shell: Shell) -> None:
    before = tree(run)
    got = shell("train", animals, *SMALL, "--dry-run", "--out", run)
    assert got.status == 0
    assert f"a training would be refused: {run}: exists (a run" in got.out
    assert shell("train", animals, *SMALL, "--dry-run", "--out", run, "--overwrite").status == 0
    assert tree(run) == before


def test_find_lr(animals: Path, place: Path, shell: Shell) -> None:
    got = shell("train", animals, *SMALL, "--find-lr")
    assert (got.status, got.err) == (0, "")
    assert "see lr-finder.png" in got.out
    assert [path.name for path in place.iterdir()] == ["lr-finder.png"]
    with Image.open(place / "lr-finder.png") as image:
        assert min(image.size) > 300


def test_what_is_refused(animals: Path, place: Path, shell: Shell) -> None:
    for arguments, says in (
        (("--dry-run", "--find-lr"), ("dry-run and find-lr: got both, expected one of them",)),
        (("--find-lr", "--resume", animals), ("no run in it",)),
        (("--track", "mlflow"), ("track: got mlflow, expected none, tensorboard or wandb",)),
        (("--teacher", "resnet18"), ("know 1000 classes, the data has 3", "--teacher-weights FILE")),
    ):
        shell.refuses("train", animals, *SMALL, *arguments, says=says)
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_distillation(kind: str, animals: Path, place: Path, shell: Shell) -> None:
    """From a file, and from a run by nothing but its folder."""
    torch.manual_seed(0)
    torch.save(timm.create_model("resnet10t", num_classes=3).state_dict(), place / "teacher.pth")
    given = ("--teacher", "resnet10t", "--teacher-weights", "teacher.pth", "--distillation", kind)
    got = shell("train", animals, *SMALL, *given, "--out", "run")
    assert (got.status, got.err) == (0, "")
    assert f"distillation: {kind}, 0.5 of the loss" in got.out
    assert f"distillation: {kind}" in (place / "run/config.yaml").read_text()
    got = shell("train", animals, *SMALL, "--teacher-weights", "run", "--distillation", kind, "--out", "second")
    assert (got.status, got.err) == (0, "")
    assert "convit_micro_patch4_32 of the run" in got.out
