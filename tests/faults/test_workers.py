"""Loader processes that are killed, as a system short of memory does it: one line, the state saved, the same bits."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.faults.harness import COUNTS, FULL, Whole, ended, said_by, started


def children(pid: int) -> list[int]:
    """The processes that a process has started and that still are."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not FULL, reason="in the full form: make fault-tests")
@pytest.mark.parametrize("line", ["parameters, on", "epoch 1/", "epoch 2/"])
def test_dead_worker(line: str, long: Whole, out: Path) -> None:
    began = time.monotonic()
    with started(*long.arguments(out)) as process:
        while line not in said_by(process) or not children(process.pid):
            assert process.poll() is None, said_by(process)
            time.sleep(0.002)
        os.kill(children(process.pid)[0], signal.SIGKILL)
        got = ended(process, began)
    assert got.status == 2, got.said
    assert "Traceback" not in got.said
    last = got.said.splitlines()[-1]
    assert last.startswith("convit train: a process that loads images died (")
    advice = f"continue with 'convit train --resume {out}', with fewer --workers than 1 if it happens again"
    assert f"saved in {out}: {advice}" in last
    assert any((out / "checkpoints").iterdir())
    long.goes_on(out)
    COUNTS["dead workers"] += 1
