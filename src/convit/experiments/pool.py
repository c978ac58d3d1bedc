"""The runs of a grid, several at once, each worker a process of its own."""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import torch

from convit.experiments.cells import Cell
from convit.train.observer import StopRequest

WORKER = "from convit.experiments.worker import main; main()"
PATIENCE = 600.0
"""Seconds that a worker may take to save its run once it is asked to."""


class Listener(Protocol):
    """Who is told how a grid goes on."""

    def begin(self, cells: int, done: int) -> None:
        """So many cells in all, so many of them complete before."""

    def progress(self, name: str, part: float) -> None:
        """A run is so far, 0 to 1."""

    def end_cell(self, name: str, why: str | None) -> None:
        """A run is complete, or failed and why."""

    def message(self, text: str) -> None:
        """A line."""


class StoppedGrid(Exception):
    """A person or a scheduler asked the grid to stop; the state of every run is saved."""

    def __init__(self, signum: int) -> None:
        super().__init__("stopped; every run is saved")
        self.signum = signum


class _Worker:
    """A process that makes one run after the other."""

    def __init__(self, log: IO[str], lock: int, threads: int, events: "queue.Queue[tuple[_Worker, Any]]") -> None:
        self.cell: Cell | None = None
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=_environment(threads),
            start_new_session=True,  # a Ctrl-C is ours to hear, not theirs
            pass_fds=(lock,),  # so nobody writes into the folder before the last of them has ended
            text=True,
            encoding="utf-8",
        )
        self.events = events
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.put((self, json.loads(line)))
        self.events.put((self, None))

    def give(self, cell: Cell, run: Path) -> None:
        """Has it make a run."""
        assert self.process.stdin is not None
        self.cell = cell
        with contextlib.suppress(BrokenPipeError):  # it has died: the end of its output says so
            self.process.stdin.write(json.dumps({"cell": cell.to_dict(), "run": str(run)}) + "\n")
            self.process.stdin.flush()

    def dismiss(self) -> None:
        """Has it save what it is at, and end."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()


def run_cells(
    cells: Sequence[Cell], runs: Path, *, jobs: int, log: Path, lock: int, listener: Listener, stop: StopRequest
) -> dict[str, str]:
    """Makes the runs of all cells.

    Args:
        cells: what is to be made, in this order.
        runs: the folder of their run folders.
        jobs: how many at once; the threads of PyTorch are divided among them.
        log: what the workers print goes there.
        lock: an open file that the workers keep open while they live.
        listener: is told how it goes on.
        stop: asked all the time.

    Returns:
        The cells that failed, by name, and why.

    Raises:
        StoppedGrid: it was asked to stop.
    """
    pending = list(cells)
    failed: dict[str, str] = {}
    events: queue.Queue[tuple[_Worker, Any]] = queue.Queue()
    workers: set[_Worker] = set()
    threads = max(1, torch.get_num_threads() // jobs)

    def give_or_dismiss(worker: _Worker) -> None:
        if pending:
            cell = pending.pop(0)
            worker.give(cell, runs / cell.name)
        else:
            worker.dismiss()

    def handle(worker: _Worker, event: dict[str, Any] | None) -> None:
        cell = worker.cell
        if event is None:  # it has ended
            workers.discard(worker)
            event = {"event": "failed", "why": f"its process died with status {worker.process.wait()}, see {log}"}
        if event["event"] == "progress" and cell is not None:
            listener.progress(cell.name, event["part"])
        elif event["event"] in ("done", "failed") and cell is not None:
            why = event.get("why")
            failed.update({cell.name: why} if why else {})
            listener.end_cell(cell.name, why)
            worker.cell = None
            if worker in workers:
                give_or_dismiss(worker)

    with log.open("a", encoding="utf-8") as stream:
        try:
            while (pending or workers) and not stop:
                while pending and len(workers) < jobs:
                    worker = _Worker(stream, lock, threads, events)
                    workers.add(worker)
                    give_or_dismiss(worker)
                with contextlib.suppress(queue.Empty):
                    handle(*events.get(timeout=0.2))
        finally:
            _end(workers)
    if stop.signum is not None:
        raise StoppedGrid(stop.signum)
    return failed


def _end(workers: set[_Worker]) -> None:
    """Has the workers save and end, and waits for it."""
    for worker in workers:
        worker.dismiss()
    try:
        for worker in workers:
            worker.process.wait(PATIENCE)
    finally:  # out of patience, or interrupted once more
        for worker in workers:
            worker.process.kill()
            worker.process.wait()


def _environment(threads: int) -> dict[str, str]:
    """That of a worker: its part of the threads, and this very package, from wherever it was imported."""
    path = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(filter(None, path))}
