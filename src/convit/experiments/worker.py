"""A process that makes runs: a cell a line on standard input, what happens a line on standard output, both JSON.

When standard input ends the process saves the run in hand and ends, so it does not outlive who started it, however
that one ended.
"""

import json
import os
import queue
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from convit.analysis import attention_record
from convit.classifier import Classifier
from convit.data import ImageSet
from convit.errors import InputError
from convit.experiments.cells import RESULT, Cell, result_of
from convit.experiments.measures import final_images, flops, masked_accuracies
from convit.train import Observer, Stopped, train
from convit.train.run_folder import RunFolder
from convit.train.state import states

INTERVAL = 0.5
"""Seconds between two reports of how far a run is, at least."""

Tell = Callable[[dict[str, Any]], None]


class CellObserver(Observer):
    """Tells how far a run is, as a part from 0 to 1.

    Args:
        tell: is given each event.
        record: whether each epoch notes how far every head looks.
    """

    def __init__(self, tell: Tell, *, record: bool) -> None:
        self.tell, self.record = tell, record
        self.epoch, self.epochs, self.images, self.done = 0, 0, 0, 0
        self.told = 0.0

    def begin(self, what: str, images: int, done: int = 0) -> None:
        """Only passes of training count."""
        found = re.fullmatch(r"epoch (\d+)/(\d+)", what)
        self.images = 0
        if found:
            self.epoch, self.epochs = int(found[1]), int(found[2])
            self.images, self.done = images, done

    def advance(self, images: int, loss: float | None = None) -> None:
        """Tells it, but not too often."""
        self.done += images
        if self.images and time.monotonic() - self.told > INTERVAL:
            self.told = time.monotonic()
            self.tell({"event": "progress", "part": (self.epoch - 1 + self.done / self.images) / self.epochs})

    def measure(self, classifier: Classifier, images: ImageSet) -> dict[str, Any]:
        """The non-locality of every head, if asked for."""
        return attention_record(classifier, images) if self.record else {}


def make(cell: Cell, run: Path, tell: Tell) -> None:
    """Makes the run of a cell, or the rest of it, and writes its ``result.json``; then its state is of no more use.

    Raises:
        InputError, OSError: as :func:`convit.train.train`.
        Stopped: the run is saved.
    """
    resume = RunFolder(run).is_run and bool(states(run / "checkpoints"))
    if not resume and run.exists():  # begun, but not as far as the first state
        shutil.rmtree(run)
    config = replace(cell.config, run=replace(cell.config.run, out=run, resume=resume))
    classifier = train(config, CellObserver(tell, record=cell.record))
    measured: dict[str, float] = {}
    if cell.masks is not None:
        images = final_images(run, cell.config, classifier.class_names)
        measured = masked_accuracies(classifier, images, cell.masks)
    facts = {
        "config": RunFolder(run).read_config().to_dict(),
        "parameters": sum(parameter.numel() for parameter in classifier.model.parameters()),
        "flops": flops(classifier),
        "measured": measured,
    }
    RunFolder(run).write_json(RESULT, result_of(cell, run, facts).to_dict())
    shutil.rmtree(run / "checkpoints")


class _Inbox:
    """Lines of standard input; when it ends in the middle of a run, the run is asked to stop."""

    def __init__(self, stream: TextIO) -> None:
        self.lines: queue.Queue[str | None] = queue.Queue()
        self.busy = False
        threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def _read(self, stream: TextIO) -> None:
        for line in stream:
            self.lines.put(line)
        self.lines.put(None)
        if self.busy:
            os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Makes runs until standard input ends."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no event

    def tell(event: dict[str, Any]) -> None:
        print(json.dumps(event), file=out, flush=True)

    inbox = _Inbox(sys.stdin)
    tell({"event": "ready"})
    while (line := inbox.lines.get()) is not None:
        task = json.loads(line)
        inbox.busy = True
        try:
            make(Cell.from_dict(task["cell"]), Path(task["run"]), tell)
            tell({"event": "done"})
        except Stopped:
            return
        except (InputError, OSError) as error:
            tell({"event": "failed", "why": " ".join(str(error).split())})
        inbox.busy = False
