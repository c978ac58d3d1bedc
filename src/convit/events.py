"""Events report the progress of long work. A caller passes a listener to receive them: a function of one event.

The screen, ``log.txt`` and the trackers are listeners. The work itself never prints. A listener may raise
:class:`convit.InputError` on :class:`Planned` and :class:`RunBegan`; then the run does not start.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Said:
    """A line for a person."""

    text: str


@dataclass(frozen=True, slots=True)
class PassBegan:
    """A pass over images begins, such as an epoch, a validation or a scan."""

    what: str
    images: int
    done: int = 0
    """Images that an earlier start did."""


@dataclass(frozen=True, slots=True)
class Advanced:
    """Further images of a pass are done."""

    images: int
    loss: float | None = None
    """The mean loss of a training step, in nats."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A new run is going to begin, and nothing is written yet."""

    folder: Path


@dataclass(frozen=True, slots=True)
class RunBegan:
    """Training begins in a folder."""

    folder: Path
    options: Mapping[str, Any]
    """Its options with nothing left open, as JSON values."""
    done: int
    """Epochs that an earlier start did."""


@dataclass(frozen=True, slots=True)
class EpochEnded:
    """An epoch is complete."""

    record: Mapping[str, Any]
    """Its line of ``metrics.jsonl``."""
    epochs: int
    """How many there are at most."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A thing that was found of a finished run, in words."""

    topic: str
    """What it is about, in a word."""
    text: str
    advice: str = ""
    """What to do about it; empty where there is nothing to do."""


@dataclass(frozen=True, slots=True)
class RunEnded:
    """A run is complete."""

    folder: Path
    findings: Sequence[Finding]
    files: Mapping[str, str]
    """Files of the folder by their names, the most useful first, and what each is."""
    commands: Mapping[str, str]
    """What may be typed next, and what each command gives."""


Event = Said | PassBegan | Advanced | Planned | RunBegan | EpochEnded | RunEnded
Listener = Callable[[Event], None]


def time_left(seconds: float) -> str:
    """How long work will still take, in words; nothing below a minute.

    >>> time_left(59), time_left(200), time_left(9000)
    ('', '3 min left', '2.5 h left')
    """
    if seconds < 60:
        return ""
    return f"{seconds / 60:.0f} min left" if seconds < 5400 else f"{seconds / 3600:.1f} h left"


def ignore(event: Event) -> None:
    """A listener that does nothing."""


def together(*listeners: Listener) -> Listener:
    """Several listeners as one."""

    def tell(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return tell
