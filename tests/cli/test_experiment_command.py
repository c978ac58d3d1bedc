"""``convit experiment`` from the command line: from a grid to its table, also when it is killed on the way."""

import csv
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import convit
from tests.cli.command import Shell, photos

SMALL = ("--models", "convit_micro_patch4_32", "--image-size", 8, "--batch-size", 4, "--workers", 0, "--seeds", 0)
KILLED = ("--epochs", 10, "--fractions", 0.5)


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("experiment") / "pets"
    photos(root / "train", {"cat": 8, "dog": 8})
    photos(root / "test", {"cat": 5, "dog": 6})
    return root


def comparable(out: Path) -> list[dict[str, str]]:
    """The results but for what differs from one time to the next."""
    with (out / "results.csv").open(newline="") as stream:
        return [{k: v for k, v in row.items() if k not in ("seconds", "config.out")} for row in csv.DictReader(stream)]


def start(out: Path, pets: Path) -> "subprocess.Popen[str]":
    """The command as a process of its own."""
    source = str(Path(convit.__file__).parent.parent)
    arguments = ["experiment", "sample-efficiency", pets, "--out", out, *SMALL, *KILLED]
    command = [sys.executable, "-P", "-c", "import convit_launcher; raise SystemExit(convit_launcher.main())"]
    return subprocess.Popen(
        [*command, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": source},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_until_epochs(out: Path, more: int) -> None:
    """Until some run has completed so many more epochs than there are now."""

    def epochs() -> int:
        return sum(len(file.read_text().splitlines()) for file in out.glob("runs/*/metrics.jsonl"))

    first, until = epochs(), time.monotonic() + 240
    while epochs() < first + more:
        assert time.monotonic() < until
        time.sleep(0.02)


def test_stopped_and_killed_gives_the_same_table(pets: Path, tmp_path: Path, shell: Shell) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    command = ("experiment", "sample-efficiency", pets, *SMALL, *KILLED)
    got = shell(*command, "--out", whole)
    assert got.status == 0, got
    assert "1/2 micro_patch4_32-" in got.err
    assert "| 50% |" in got.out
    assert "11 test images" in got.out
    assert "Columns in italics are the paper's" in got.out

    process = start(broken, pets)
    wait_until_epochs(broken, 1)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate()
    assert process.returncode == 143, said
    assert "every run is saved" in said
    assert list(broken.glob("runs/*/checkpoints/*"))
    assert not (broken / "table.md").exists()

    process = start(broken, pets)
    wait_until_epochs(broken, 1)
    process.kill()
    process.communicate()
    with (broken / ".lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # the runs, who hold it too, end by themselves

    assert shell(*command, "--out", broken, "--jobs", 2).status == 0
    assert (broken / "table.md").read_text() == (whole / "table.md").read_text()
    assert comparable(broken) == comparable(whole)
    assert {path.name for path in whole.iterdir()} >= {"results.json", "accuracy.png", "curves.png", "experiment.json"}
    assert len(list((whole / "runs").iterdir())) == 2
    assert not list(whole.glob("runs/*/checkpoints"))

    again = shell(*command, "--out", whole)
    assert (again.status, again.out) == (0, got.out)
    assert "2 runs, 2 of them complete before" in again.err
    shell.refuses(*command, "--out", whole, "--epochs", 11, says=("its settings epochs is 10, got 11", "--overwrite"))


def test_a_run_that_fails(pets: Path, tmp_path: Path, shell: Shell) -> None:
    rows = ("--rows", "as-it-is", "--epochs", 2, "--lr", 1e11, "--fractions", 1)
    got = shell("experiment", "design", pets, "--out", tmp_path / "x", *SMALL, *rows)
    assert got.status == 2
    assert "1 of 1 runs failed" in got.err.splitlines()[-1]
    assert "loss: got" in got.err.splitlines()[-1]
    assert not (tmp_path / "x/table.md").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("ablation", "digits", "--jobs", 0), ("jobs: got 0",)),
        (("ablation", "digits", "--rows"), ("rows: got nothing",)),
        (("ablation",), ("data: got none",)),
    ],
)
def test_refuses(arguments: tuple[object, ...], says: tuple[str, ...], shell: Shell, tmp_path: Path) -> None:
    shell.refuses("experiment", *arguments, "--out", tmp_path / "x", says=says)
    assert not (tmp_path / "x").exists()
