"""What a run tells while it goes on, and how it is asked to stop."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from convit.classifier import Classifier
from convit.data import ImageSet


class Observer:
    """Hears how a run goes on; every method may be left out. The command line's progress bars are one."""

    def message(self, text: str) -> None:
        """A line for a person."""

    def begin(self, what: str, images: int, done: int = 0) -> None:
        """A pass over ``images`` images begins, ``done`` of them already done."""

    def advance(self, images: int, loss: float | None = None) -> None:
        """``images`` more are done."""

    def measure(self, classifier: Classifier, images: ImageSet) -> dict[str, Any]:
        """What to write into the epoch's line of ``metrics.jsonl`` besides what the trainer does, as JSON values.

        Asked after each epoch, with the model as it is then, in evaluation mode, and the validation images. What it
        returns must depend on nothing else, or a run that was stopped would not repeat; it must leave the model alone.
        """
        return {}

    def check(self) -> None:
        """Asked before a new run writes anything, or replaces another.

        Raises:
            InputError: it could not begin.
        """

    def begin_run(self, folder: Path, config: dict[str, Any], done: int) -> None:
        """Training begins in ``folder``, with the options ``config``, after ``done`` epochs of an earlier start."""

    def end_epoch(self, record: dict[str, Any], epochs: int) -> None:
        """An epoch is complete; ``record`` is its line of ``metrics.jsonl``."""


class Stopped(Exception):
    """A person or a scheduler asked the run to stop, and its state is saved."""

    def __init__(self, signum: int, folder: Path) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}; the state is saved in {folder}")
        self.signum = signum
        self.folder = folder


class StopRequest:
    """Whether someone asked the run to stop."""

    def __init__(self) -> None:
        self.signum: int | None = None

    def __bool__(self) -> bool:
        return self.signum is not None


@contextmanager
def stop_on_signals(*, second_acts: bool = True) -> Iterator[StopRequest]:
    """Within it the first SIGINT or SIGTERM is noted, for the run to stop at its next step; a second acts at once.

    Not so with ``second_acts=False``, for processes that a launcher starts: it hands on a signal that they got already.
    """
    request = StopRequest()
    before: dict[int, Any] = {}

    def note(signum: int, frame: FrameType | None) -> None:
        request.signum = signum
        for number, handler in before.items() if second_acts else ():
            signal.signal(number, handler)

    try:
        for wanted in (signal.SIGINT, signal.SIGTERM):
            before[wanted] = signal.signal(wanted, note)
    except ValueError:  # not the main thread: signals are not ours to take
        before.clear()
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
