"""``convit experiment`` from the command line: from a grid to its table, also when it is killed on the way."""

import csv
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import convit
from convit.cli.experiment import GridProgress
from convit.experiments import pool
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
        return [
            {k: v for k, v in row.items() if k not in ("seconds", "config.run.out")} for row in csv.DictReader(stream)
        ]


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

    first, until = epochs(), time.monotonic() + 120
    while epochs() < first + more:
        assert time.monotonic() < until
        time.sleep(0.02)


def test_stopped_and_killed_gives_the_same_table(
    pets: Path, tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    got = shell("experiment", "sample-efficiency", pets, "--out", whole, *SMALL, *KILLED)
    assert got.status == 0, got
    assert "1/2 micro_patch4_32-" in got.err
    assert "| 50% |" in got.out
    assert "11 test images" in got.out
    assert "Columns in italics are the paper's" in got.out

    with monkeypatch.context() as patch:
        patch.setattr(GridProgress, "progress", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        stopped = shell("experiment", "sample-efficiency", pets, "--out", broken, *SMALL, *KILLED)
    assert stopped.status == 143, stopped
    assert "every run is saved" in stopped.err
    assert list(broken.glob("runs/*/checkpoints/*"))
    assert not (broken / "table.md").exists()

    process = start(broken, pets)
    wait_until_epochs(broken, 1)
    process.kill()
    process.communicate()
    with (broken / ".lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # the workers, who hold it too, end by themselves

    assert shell("experiment", "sample-efficiency", pets, "--out", broken, *SMALL, *KILLED).status == 0
    assert (broken / "table.md").read_text() == (whole / "table.md").read_text()
    assert comparable(broken) == comparable(whole)
    assert {path.name for path in whole.iterdir()} >= {"results.json", "accuracy.png", "curves.png", "experiment.json"}
    runs = sorted((whole / "runs").iterdir())
    assert len(runs) == 2
    assert not any((run / "checkpoints").exists() for run in runs)

    before = {run: (run / "result.json").stat().st_mtime_ns for run in runs}
    again = shell("experiment", "sample-efficiency", pets, "--out", whole, *SMALL, *KILLED)
    assert (again.status, again.out) == (0, got.out)
    assert "2 runs, 2 of them complete before" in again.err
    assert {run: (run / "result.json").stat().st_mtime_ns for run in runs} == before
    shell.refuses(
        *("experiment", "sample-efficiency", pets, "--out", whole, *SMALL, "--epochs", 11),
        says=("its settings.epochs is 10, got 11", "--overwrite"),
    )
    shell.refuses(
        "experiment", "models", pets, "--out", whole, *SMALL, "--epochs", 10, says=("its experiment is sample-eff",)
    )


def test_small_data_leaves_the_test_part_unread(pets: Path, tmp_path: Path, shell: Shell) -> None:
    rows = ("--rows", "as-it-is", "twin", "augmentation", "--epochs", 1, "--fractions", 0.5)
    got = shell("experiment", "small-data", pets, "--out", tmp_path / "x", *SMALL, *rows)
    assert got.status == 0, got
    assert "2 validation images" in got.out
    assert "the test part is not read" in got.out
    assert "italics" not in got.out  # the paper has no such table
    assert "| augmentation: RandAugment" in got.out
    assert (tmp_path / "x/differences.png").is_file()


def test_a_run_that_fails(pets: Path, tmp_path: Path, shell: Shell) -> None:
    arguments = ("experiment", "models", pets, "--out", tmp_path / "x", *SMALL, "--epochs", 2)
    got = shell(*arguments, "--lr", 1e30)
    assert got.status == 2
    assert "2 of 2 runs failed" in got.err
    assert "loss: got" in got.err.splitlines()[-1]
    assert not (tmp_path / "x/table.md").exists()


def test_a_worker_that_dies(pets: Path, tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "WORKER", "raise SystemExit(7)")
    got = shell("experiment", "models", pets, "--out", tmp_path / "x", *SMALL, "--epochs", 2)
    assert got.status == 2
    assert "its process died with status 7" in got.err.splitlines()[-1]


def test_masking_and_models(pets: Path, tmp_path: Path, shell: Shell) -> None:
    common = (*SMALL, "--epochs", 1)
    masking = shell("experiment", "masking", pets, "--out", tmp_path / "m", *common)
    assert masking.status == 0, masking
    assert "| first 3 |" in masking.out
    results = json.loads((tmp_path / "m/results.json").read_text())["results"]
    assert {len(result["measured"]) for result in results} == {1, 7}
    models = shell("experiment", "models", pets, "--out", tmp_path / "t", *common)
    assert models.status == 0, models
    assert shell("experiment", "models", pets, "--out", tmp_path / "t", *common).out == models.out  # speeds are kept


def test_distillation_from_a_run(pets: Path, tmp_path: Path, shell: Shell) -> None:
    small = ("--model", *SMALL[1:8], "--epochs", 1)
    assert shell("train", pets, "--out", tmp_path / "teacher", *small).status == 0
    arguments = ("--out", tmp_path / "d", *SMALL, "--epochs", 1, "--teacher-weights", tmp_path / "teacher")
    got = shell("experiment", "distillation", pets, *arguments)
    assert got.status == 0, got
    assert "| ConViT |" in got.out
    assert (tmp_path / "d/non_locality_convit_distilled.png").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("ablation", "digits", "--jobs", 0), ("jobs: got 0",)),
        (("ablaton", "digits"), ("ablaton", "ablation")),
        (("ablation", "nowhere"), ("nowhere", "no such folder")),
        (("ablation", "digits", "--strengths", 1), ("strengths: got it for ablation",)),
        (("ablation",), ("DATA",)),
    ],
)
def test_refuses(arguments: tuple[object, ...], says: tuple[str, ...], shell: Shell, tmp_path: Path) -> None:
    shell.refuses("experiment", *arguments, "--out", tmp_path / "x", says=says)
    assert not (tmp_path / "x").exists()
