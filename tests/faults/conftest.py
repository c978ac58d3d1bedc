"""The runs that were left alone, and the line that says what the others went through."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.harness import COUNTS, FULL, LONG, SHORT, Forks, Whole
from tests.training.small import photos


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is done to processes and disks here is done as on Linux."""
    if not sys.platform.startswith("linux"):
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="needs Linux: /proc, process groups, tmpfs"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Says how much was done."""
    if COUNTS:
        form = "full form" if FULL else "short form; all of it: make fault-tests"
        counts = ", ".join(f"{count} {what}" for what, count in COUNTS.items())
        terminalreporter.write_line(f"faults ({form}): {counts}; every run that went on ended with the same bits")


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for runs: in memory where there is room, for they save and sync some thousand times."""
    memory = Path("/dev/shm")
    roomy = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 1 << 30
    folder = Path(tempfile.mkdtemp(dir=memory)) if roomy else tmp_path_factory.mktemp("faults")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def data(place: Path) -> Path:
    """22 images to learn from and 3 to validate; read only."""
    return photos(place / "animals", {"ape": 8, "bee": 8, "cow": 9})


@pytest.fixture(scope="session")
def forks(place: Path) -> Iterator[Forks]:
    process = Forks(place)
    yield process
    process.close()


@pytest.fixture(scope="session")
def long(place: Path, data: Path, forks: Forks) -> Whole:
    """A run of several epochs that was left alone, in a process of its own in the full form."""
    return Whole(data, place / "long", LONG, forks, forked=not FULL)


@pytest.fixture(scope="session")
def short(place: Path, data: Path, forks: Forks) -> Whole:
    """One of two steps."""
    return Whole(data, place / "short", SHORT, forks, forked=True)


@pytest.fixture
def out(place: Path) -> Iterator[Path]:
    """Where a run goes that is gone afterwards."""
    yield place / "run"
    shutil.rmtree(place / "run", ignore_errors=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a file system of so many bytes."""
    mounted: list[Path] = []

    def mount(size: int) -> Path:
        folder = tmp_path / "disk"
        folder.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.decode().strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)
