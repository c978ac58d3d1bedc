"""One process at a time, until it ends in whatever way; its children do not keep the lock for it."""

import contextlib
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from convit.errors import InputError
from convit.lock import locked

pytestmark = pytest.mark.skipif(os.name != "posix", reason="locks of POSIX")

HOLDS = """
import multiprocessing, sys, time
from pathlib import Path
from convit.lock import locked

with locked(Path(sys.argv[1]), "trains"):
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    print(child.pid, flush=True)
    time.sleep(60)
"""


def test_one_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    says = rf"another process \(pid {os.getpid()} on {platform.node()}\) trains in {folder}; expected its end, or"
    with locked(folder, "trains"), pytest.raises(InputError, match=says), locked(folder, "trains"):
        pass
    with locked(folder, "trains"):
        pass


def test_waits(tmp_path: Path) -> None:
    with locked(tmp_path, "trains"), pytest.raises(InputError), locked(tmp_path, "trains", wait=0.3):
        pass
    first = contextlib.ExitStack()
    first.enter_context(locked(tmp_path, "trains"))
    signal.signal(signal.SIGALRM, lambda *_: first.close())
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    with locked(tmp_path, "trains", wait=30):
        pass


def test_a_killed_process_holds_nothing_and_its_children_neither(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        with pytest.raises(InputError, match=rf"another process \(pid {process.pid} on"), locked(tmp_path, "trains"):
            pass
        process.kill()
        process.wait()
        os.kill(child, 0)  # it lives, and gives the lock up as soon as it is scheduled
        with locked(tmp_path, "trains", wait=20):
            pass
    finally:
        process.kill()
        os.kill(child, signal.SIGKILL)


def test_a_child_does_not_give_the_lock_up(tmp_path: Path) -> None:
    with locked(tmp_path, "trains"):
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(0,))
        child.start()
        child.join()
        with pytest.raises(InputError), locked(tmp_path, "trains"):
            pass


def test_of_a_file_that_was_removed(tmp_path: Path) -> None:
    """Whoever had opened it before it was removed, by who gave the folder up, takes the new one."""
    first = contextlib.ExitStack()
    first.enter_context(locked(tmp_path, "trains"))

    def discard(*_: object) -> None:
        (tmp_path / ".lock").unlink()
        first.close()

    signal.signal(signal.SIGALRM, discard)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    with locked(tmp_path, "trains", wait=30), pytest.raises(InputError), locked(tmp_path, "trains"):
        pass
