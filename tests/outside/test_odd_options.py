"""Options that would do nothing, or something else than they say, or that break the machine."""

from pathlib import Path

import pytest

from tests.cli.command import Shell, photos


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return photos(tmp_path / "animals", {"ape": 6, "bee": 6})


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--crop none --crop-scale 0.5", "crop-scale: got 0.5 with --crop none"),
        ("--crop shift --crop-scale 0.5", "crop-scale: got 0.5 with --crop shift"),
        ("--lr 0.1 --min-lr 0.5", "min-lr: got more than the peak learning rate of 0.1"),
        ("--lr 0.1 --warmup-lr 0.5", "warmup-lr: got more than the peak learning rate of 0.1"),
    ],
)
def test_options_that_contradict_each_other(words: str, says: str, data: Path, shell: Shell) -> None:
    shell.refuses("train", data, "--dry-run", "--workers", "0", *words.split(), says=(says,))


@pytest.mark.parametrize("words", ["--crop none", "--lr 1e-6", "--recipe paper --lr 1e-8"])
def test_what_is_decided_can_be_asked_again(words: str, data: Path, tmp_path: Path, shell: Shell) -> None:
    """A crop that takes no part, and a peak below the usual end: the run's own config.yaml repeats it."""
    small = ("--model", "convit_nano_patch4_32", "--epochs", "5", "--batch-size", "4", "--workers", "0")
    convit_yaml = tmp_path / "run" / "config.yaml"
    shell("train", data, "--out", tmp_path / "run", *small, *words.split())
    assert shell("train", "--config", convit_yaml, "--out", tmp_path / "again", "--dry-run").status == 0


def test_as_many_processes_and_threads_as_no_machine_has(shell: Shell) -> None:
    """Thousands of processes hang, a hundred thousand threads crash PyTorch."""
    shell.refuses("evaluate", "run", "digits", "--workers", "99999", says=("workers: got 99999", "from 0 to 1024"))
    shell.refuses("bench", "--threads", "99999", says=("threads: got 99999", "from 1 to 1024"))
