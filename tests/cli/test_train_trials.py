"""Looks ahead from the command line, and distillation: what they print, write and refuse."""

from pathlib import Path

import pytest
import timm
import torch
from PIL import Image

from tests.cli.command import SMALL, Shell, tree


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_dry_run(animals: Path, place: Path, shell: Shell) -> None:
    got = shell("train", animals, *SMALL, "--dry-run", "--plot", "schedule.png")
    assert (got.status, got.err) == (0, "")
    for words in ("15 to learn from, 3 to validate", "1 steps of 8 images in an epoch", "memory: ", "learning rate: "):
        assert words in got.out
    assert "nothing was trained, nothing else was written" in got.out
    assert [path.name for path in place.iterdir()] == ["schedule.png"]


def test_dry_run_leaves_a_run_as_it_is(animals: Path, run: Path, shell: Shell) -> None:
    before = tree(run)
    shell.refuses("train", animals, *SMALL, "--dry-run", "--out", run, says=("exists (a run",))
    assert shell("train", animals, *SMALL, "--dry-run", "--out", run, "--overwrite").status == 0
    assert tree(run) == before


def test_find_lr(animals: Path, place: Path, shell: Shell) -> None:
    got = shell("train", animals, *SMALL, "--find-lr")
    assert (got.status, got.err) == (0, "")
    assert "see lr-finder.png" in got.out
    with Image.open(place / "lr-finder.png") as image:
        assert min(image.size) > 300
    assert shell("train", animals, *SMALL, "--find-lr", "--plot", "b.png").out == got.out.replace(
        "lr-finder.png", "b.png"
    )
    assert {path.name for path in place.iterdir()} == {"lr-finder.png", "b.png"}


def test_find_batch_size(animals: Path, place: Path, shell: Shell) -> None:
    got = shell("train", animals, *SMALL, "--find-batch-size")
    assert (got.status, got.err) == (0, "")
    assert "8 images a step: " in got.out
    assert "--batch-size 8 is the largest power of two that fits: an epoch has 15 images" in got.out
    assert list(place.iterdir()) == []


def test_what_is_refused(animals: Path, place: Path, shell: Shell) -> None:
    for arguments, says in (
        (("--dry-run", "--find-lr"), ("--dry-run and --find-lr: got 2 of them, expected one",)),
        (("--plot", "a.png"), ("plot: got a.png without --dry-run and --find-lr",)),
        (("--find-lr", "--plot", "a.txt"), ("plot: got a.txt, expected a name that ends in .png",)),
        (("--find-lr", "--resume", "--out", "r"), ("resume: got it for a trial",)),
        (("--track", "mlflow"), ("--track: got mlflow, expected one of", "tensorboard", "wandb")),
        (("--find-lr", "--plot", "no/such.png"), ("no", "expected a place with room")),
        (("--teacher", "resnet18"), ("know 1000 classes, the data has 3", "--teacher-weights FILE")),
        (("--teacher", "resnot18"), ("got 'resnot18'; did you mean 'resnet18'?",)),
        (("--teacher-weights", "none.pth", "--teacher", "resnet18"), ("none.pth: no such file",)),
        (("--distillation", "soft"), ("without a teacher",)),
        (("--distillation-alpha", "2"), ("distillation-alpha: got 2.0, expected 0 to 1",)),
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
