"""Machines of strangers: no shared memory, few open files, too little memory, other images on another machine, parts of
a run folder that are gone, signals on signals."""

import errno
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from convit.cli import bench, tracking
from convit.data.select import Learning, select
from convit.errors import InputError
from convit.training import planning
from convit.training.distributed import World
from convit.training.workers import WorkerDied, batches, end_workers, make_loader
from tests.cli.command import SMALL, Shell, photos
from tests.training.small import options

posix = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


# -- processes that load images ----------------------------------------------------------------------------------------


class Stuck:
    """A batch for which there is no room in the shared memory: that is found out by a thread, whose error Python only
    prints."""

    def __init__(self, images: Any) -> None:
        pass

    def __reduce__(self) -> Any:
        raise RuntimeError("unable to allocate shared memory(shm)")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_no_shared_memory_is_refused_before_anything_is_written(
    number: int, animals: Path, tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(self: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(multiprocessing.get_context(), "Lock", none.__get__(object()))
    words = ("train", animals, "--out", tmp_path / "run", *SMALL[:-1], "2")
    shell.refuses(*words, says=("workers: got 2", os.strerror(number), "--workers 0"))
    assert not (tmp_path / "run").exists()


@posix
def test_too_few_open_files_are_refused_before_anything_is_written(animals: Path, tmp_path: Path, shell: Shell) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 60, before[1]))
    try:
        says = ("workers: got 8", "ulimit -n", "--workers 2")
        line = shell.refuses("train", animals, "--out", tmp_path / "run", *SMALL[:-1], "8", says=says)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert "open files" in line
    assert not (tmp_path / "run").exists()


class Full(torch.utils.data.Dataset[torch.Tensor]):
    """Images that a process cannot hand over."""

    def __init__(self, told: str) -> None:
        self.told = told

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        raise RuntimeError(self.told)


@pytest.mark.parametrize(
    ("images", "more"),
    [
        (torch.zeros(4, 2), {"collate_fn": Stuck}),
        (Full("unable to allocate shared memory(shm) for file </torch_1>"), {}),
        (Full("Too many open files"), {}),
        (Full("unable to resize file </torch_1> to the right size: File too large (27)"), {}),
    ],
)
def test_processes_that_cannot_hand_over_images_died(images: Any, more: dict[str, Any]) -> None:
    loader = make_loader(images, 1, **more)
    with pytest.raises(WorkerDied, match="--workers 0"):
        list(batches(loader))
    end_workers(loader)


# -- memory ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", ["--image-size 1000000", "--image-size 224 --batch-size 100000000000"])
def test_images_larger_than_the_memory_are_refused(words: str, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "measure", None)
    shell.refuses("bench", *words.split(), says=("image-size", "batch-size", "GiB"))


# -- several processes -------------------------------------------------------------------------------------------------


class Second(World):
    """Process 1 of 2, whose process 0 has chosen other images."""

    def __init__(self, first: Any) -> None:
        super().__init__(rank=1, size=2)
        self.first = first

    def barrier(self) -> None:
        """Nobody is waited for."""

    def from_main(self, make: Any) -> Any:
        return self.first


def test_processes_with_other_images_of_the_same_names_do_not_train_together(tmp_path: Path) -> None:
    here, there = (photos(tmp_path / at / "data", {"ape": 4, "bee": 4}) for at in ("a", "b"))
    first = select(str(there), Learning()).record
    asked = options(here, tmp_path / "run")
    planning._chosen(asked, Second(first))
    Image.new("RGB", (8, 8), "red").save(here / "bee/2.png")
    with pytest.raises(InputError, match=r"process 1 of 2.*bee/2\.png.* is another image"):
        planning._chosen(asked, Second(first))


# -- run folders -------------------------------------------------------------------------------------------------------


def test_a_run_without_its_config_does_not_pass_other_images_for_its_own(
    run: Path, animals: Path, shell: Shell
) -> None:
    (run / "config.yaml").unlink()
    quick = ("--skip-masking", "--layers", "1", "--most", "2")
    shell.refuses("inspect", run, *quick, says=(run, "config.yaml", "--data"))
    got = shell("inspect", run, animals / "ape/0.png", *quick)
    assert got.status == 0
    assert "config.yaml" in got.err
    got = shell("inspect", run, animals / "ape/0.png", "--data", animals, *quick)
    assert got.status == 0
    assert "not known which images" in got.err
    assert "learned from" in got.err
    (run / "split.json").write_text("{")
    shell.refuses("inspect", run, "--data", animals, *quick, says=("split.json",))


def test_a_run_without_its_split_is_refused(run: Path, animals: Path, shell: Shell) -> None:
    (run / "split.json").unlink()
    shell.refuses("inspect", run, says=("split.json",))
    shell.refuses("evaluate", run, animals, says=("split.json",))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_best_model_that_is_gone_is_missed_at_the_beginning(
    name: str, trained: Path, tmp_path: Path, shell: Shell
) -> None:
    out = Path(shutil.copytree(trained, tmp_path / "run"))
    (out / name).unlink()
    before = (out / "log.txt").read_bytes()
    shell.refuses("train", "--resume", out, says=(name, "--config"))
    assert (out / "log.txt").read_bytes() == before


def test_a_dry_run_tries_the_tracker(
    animals: Path, tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoKey:
        """A tracker that nobody has a key of."""

        library = "json"

        def __init__(self, module: Any) -> None:
            pass

        def check(self) -> None:
            raise RuntimeError("no API key")

        def close(self) -> None:
            pass

    monkeypatch.setitem(tracking.TRACKERS, "wandb", NoKey)  # type: ignore[arg-type]
    words = ("train", animals, "--out", tmp_path / "run", "--track", "wandb", *SMALL)
    for trial in ("--dry-run", "--find-lr"):
        got = shell(*words, trial)
        assert got.status == 2
        assert "wandb" in got.err
        assert "no API key" in got.err
    assert not (tmp_path / "run").exists()


# -- signals -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def process() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that are ended at the end."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for one in started:
        one.kill()
        one.wait()


@posix
@pytest.mark.parametrize("later", [0.3, 1.5])
def test_ctrl_c_while_python_imports_the_package(later: float, process: list[subprocess.Popen[str]]) -> None:
    words = [sys.executable, "-m", "convit", "train", "digits", "--dry-run"]
    one = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    process.append(one)
    time.sleep(later)
    one.send_signal(signal.SIGINT)
    assert "Traceback" not in one.communicate(timeout=30)[1]
    assert one.returncode in (130, -signal.SIGINT)  # Python itself was not there yet


@posix
def test_signals_on_signals_leave_no_traceback(
    animals: Path, tmp_path: Path, process: list[subprocess.Popen[str]]
) -> None:
    words = ["train", animals, "--out", tmp_path / "run", *SMALL, "--epochs", "2000"]
    one = subprocess.Popen(
        [sys.executable, "-c", "import convit_launcher; convit_launcher.program()", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.append(one)
    assert one.stdout is not None
    for line in one.stdout:
        if line.startswith("epoch"):
            break
    reader = threading.Thread(target=one.stdout.read, daemon=True)
    reader.start()
    for _ in range(60):  # somebody leans on Ctrl-C until it is over
        if one.poll() is not None:
            break
        one.send_signal(signal.SIGINT)
        time.sleep(0.02)
    assert one.stderr is not None
    said = one.stderr.read()
    assert "Traceback" not in said
    assert "Exception ignored" not in said
    assert one.wait(30) in (130, -signal.SIGINT)  # Python itself was at its end already
