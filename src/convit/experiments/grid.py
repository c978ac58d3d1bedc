"""The runs of a grid, several at once, each a process of its own."""

import contextlib
import functools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from convit.events import Said, time_left
from convit.experiments.folder import ExperimentFolder
from convit.experiments.results import Cell
from convit.training.run_folder import RunFolder
from convit.training.stopping import StopRequest

PROGRAM: tuple[str, ...] = ("-P", "-m", "convit.experiments.cell")
"""What a process runs, on a config, a run folder and the name of a rival, if it trains one."""
PATIENCE = 600.0
"""Seconds that a process may take to save its run once it is asked to."""
EVERY = 0.2
"""Seconds from one look at the processes to the next."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a grid is, when that has changed."""

    cells: int
    complete: int
    running: Mapping[str, float]
    """How far each run is that is being made, from 0 to 1, by name."""
    left: str
    """How long the rest takes, by what was done since the start; nothing below a minute."""


Listener = Callable[[Said | Standing], None]


class StoppedGrid(Exception):
    """A person or a scheduler asked the grid to stop; the state of every run is saved."""

    def __init__(self, signum: int) -> None:
        super().__init__("stopped; every run is saved")
        self.signum = signum


class _Process:
    """Makes one run. It ends when its input does, so when this process does too."""

    def __init__(self, cell: Cell, folder: ExperimentFolder, lock: int, threads: int) -> None:
        self.name, self.run = cell.name, RunFolder(folder.run(cell))
        self.before = self.part()
        path = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]  # this very package, wherever it is
        own = {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(filter(None, path))}
        self.output = tempfile.TemporaryFile()  # noqa: SIM115 (closed when it has ended)
        self.popen = subprocess.Popen(
            [sys.executable, *PROGRAM, folder.write_config(cell), self.run.path, *([cell.rival] if cell.rival else [])],
            stdin=subprocess.PIPE,
            stdout=self.output,
            stderr=subprocess.STDOUT,
            env=os.environ | own,
            start_new_session=True,  # a Ctrl-C is ours to hear, not theirs
            pass_fds=(lock,),  # so nobody writes into the folder before the last of them has ended
        )

    @functools.cached_property
    def epochs(self) -> int:
        """Of the run, which has begun."""
        return self.run.read_options().epochs or 1

    def part(self) -> float:
        """How much of the run is complete, from 0 to 1."""
        return len(self.run.read_history()) / self.epochs if self.run.has_metrics else 0.0

    def dismiss(self) -> None:
        """Has it save the run, and end."""
        assert self.popen.stdin is not None
        self.popen.stdin.close()

    def why_failed(self, log: BinaryIO) -> str | None:
        """Waits for its end and moves what it said to the log; gives why there is no result, if there is none."""
        status = self.popen.wait(PATIENCE)
        with self.output:
            self.output.seek(0)
            lines = self.output.read().splitlines()
        log.writelines(os.fsencode(self.name) + b": " + line + b"\n" for line in lines)
        if status == 2 and lines:
            return lines[-1].decode(errors="replace")
        return f"its process ended with status {status}, see {log.name}" if status else None


def run_cells(
    cells: Sequence[Cell],
    folder: ExperimentFolder,
    *,
    jobs: int,
    threads: int,
    lock: int,
    tell: Listener,
    stop: StopRequest,
) -> dict[str, str]:
    """Makes the runs of cells, or the rest of them; those that are complete are left as they are.

    Args:
        cells: what is to be made, in this order.
        folder: of the experiment.
        jobs: how many at once.
        threads: of PyTorch, that each has.
        lock: an open file that the processes keep open while they live.
        tell: is told how it goes on.
        stop: asked all the time.

    Returns:
        The cells that failed, by name, and why.

    Raises:
        InputError: a run that is there is of other options than its cell.
        StoppedGrid: it was asked to stop.
    """
    pending, running, failed = [cell for cell in cells if not folder.has(cell)], list[_Process](), dict[str, str]()
    before = len(cells) - len(pending)
    tell(Said(f"{len(cells)} runs" + (f", {before} of them complete before" if before else "")))
    if pending:  # in a pipe nothing more is said until the first of them ends
        tell(Said(f"how far each is: log.txt in its folder, such as {folder.run(pending[0])}"))
    began, worked = time.monotonic(), 0.0

    def standing() -> Standing:
        parts = {process.name: process.part() for process in running}
        done = worked + sum(parts[process.name] - process.before for process in running)
        seconds = (time.monotonic() - began) / max(done, 0.05) * (len(pending) + len(parts) - sum(parts.values()))
        complete = len(cells) - len(pending) - len(running)
        return Standing(len(cells), complete, parts, time_left(seconds) if done > 0.05 else "")

    with (folder.path / "log.txt").open("ab") as log, _ended(running, log):
        told: Standing | None = None
        while (pending or running) and not stop:
            while pending and len(running) < jobs:
                running.append(_Process(pending.pop(0), folder, lock, threads))
            time.sleep(EVERY)
            for process in [process for process in running if process.popen.poll() is not None]:
                running.remove(process)
                process.dismiss()
                worked += 1 - process.before
                said = process.name
                if why := process.why_failed(log):
                    failed[process.name] = why
                    said = f"{said}: failed, {why}"
                now = standing()
                tell(Said(f"{now.complete}/{len(cells)} {said}{now.left and f', {now.left}'}"))
            now = standing()
            if told is None or (now.complete, now.running) != (told.complete, told.running):
                tell(now)
                told = now
    if stop.signum is not None:
        raise StoppedGrid(stop.signum)
    return failed


@contextlib.contextmanager
def _ended(running: Sequence[_Process], log: BinaryIO) -> Iterator[None]:
    """At its end, or after an error, the processes save their runs and end."""
    try:
        yield
    finally:
        for process in running:
            process.dismiss()
        try:
            for process in running:
                process.why_failed(log)
        finally:  # out of patience, or interrupted once more
            for process in running:
                process.popen.kill()
                process.popen.wait()
