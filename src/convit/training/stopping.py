"""Signals that ask a run to stop."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any


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
