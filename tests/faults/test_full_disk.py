"""A disk that is really full, and a limit on the size of files, through the command line."""

import resource
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.harness import COUNTS, FULL, Whole, command, ended, said_by, started

pytestmark = pytest.mark.skipif(not FULL, reason="in the full form: make fault-tests")
MODEL = 4 << 20
"""About the size of the weights; a state is of four times that."""


@pytest.mark.parametrize("room", [1, 3, 9, 15])
def test_full_disk(room: int, disk: Callable[[int], Path], long: Whole, out: Path) -> None:
    """Room for nothing, for the model, for parts of one state: it trains to the end, tells, and ends with one line."""
    folder = disk(room * MODEL // 2)
    got = long.forks(*long.arguments(folder / "run"))
    assert got.status == 2, got.said
    assert "Traceback" not in got.said
    assert "could not save (No space left on device): training goes on, and this is tried again" in got.said
    assert "No space left on device; expected a place with room that can be written to" in got.said.splitlines()[-1]
    assert not list(folder.rglob("*.tmp"))
    shutil.copytree(folder / "run", out)  # where there is room
    long.goes_on(out)
    COUNTS["full disks"] += 1


def test_disk_with_room_again(disk: Callable[[int], Path], long: Whole, out: Path) -> None:
    """A file that fills the disk is removed while the run goes on: nothing is lost."""
    folder = disk(20 * MODEL)
    run, filling = folder / "run", folder / "filling"
    began = time.monotonic()
    with started(*long.arguments(run)) as process:
        wait_for(process, "epoch 1/")
        fill(filling)
        wait_for(process, "could not save")
        filling.unlink()
        got = ended(process, began)
    assert got.status == 0, got.said
    assert "saved again: there is room" in got.said
    long.same(run)
    COUNTS["full disks"] += 1


def wait_for(process: "subprocess.Popen[str]", words: str) -> None:
    """Until it has said them."""
    while words not in said_by(process):
        assert process.poll() is None, said_by(process)
        time.sleep(0.005)


def fill(file: Path) -> None:
    """Takes all the room there is."""
    with file.open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(1 << 16))
        except OSError:
            pass


@pytest.mark.parametrize("size", [100, MODEL // 2, 2 * MODEL])
def test_files_are_limited_in_size(size: int, long: Whole, out: Path) -> None:
    """``ulimit -f``: less than the options take, than the model, than a state."""
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))}
    got = command(*long.arguments(out), stdout=subprocess.PIPE, **limit)
    assert got.status == 2, got.said
    long.goes_on(out)
    COUNTS["limits on the size of files"] += 1
