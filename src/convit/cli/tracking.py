"""Each epoch's figures to TensorBoard or Weights & Biases, besides the run folder's own ``metrics.jsonl``.

A tracker is a listener of a run. One that cannot start says so before anything is written; one that fails later on does
not end the training.
"""

import contextlib
import importlib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from convit.errors import InputError, one_line
from convit.events import EpochEnded, Event, Listener, Planned, RunBegan, ignore
from convit.files import parse_json, read, write_json

NAMES = {
    "train_loss": "loss/training",
    "val_loss": "loss/validation",
    "val_top1": "accuracy/top-1",
    "val_top5": "accuracy/top-5",
    "lr": "learning rate",
    "images_per_second": "images per second",
}
"""What figures of ``metrics.jsonl`` are called there."""
IDS = "tracking.json"
"""Where a run's folder keeps what the run is called elsewhere, for the day it goes on."""


def figures(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an epoch by name, with the mean gate of every layer.

    >>> figures({"epoch": 2, "val_top1": 97.0, "gates": [[0.5, 0.7], [0.1, 0.3]]})
    {'accuracy/top-1': 97.0, 'gate/layer 1': 0.6, 'gate/layer 2': 0.2}
    """
    gates = {f"gate/layer {i}": sum(layer) / len(layer) for i, layer in enumerate(record.get("gates", ()), start=1)}
    return {NAMES[key]: value for key, value in record.items() if key in NAMES} | gates


class TensorBoard:
    """Event files in the run's folder, for ``tensorboard --logdir RUN/tensorboard``. A resumed run adds to them."""

    library = "torch.utils.tensorboard"

    def __init__(self, module: Any) -> None:
        self.module, self.writer = module, None

    def check(self) -> None:
        """It needs nothing."""

    def begin(self, event: RunBegan) -> None:
        """Epochs after those that are done are hidden: the run makes them again."""
        purge = event.done + 1 if event.done else None
        self.writer = self.module.SummaryWriter(str(event.folder / "tensorboard"), purge_step=purge)

    def log(self, values: Mapping[str, float], epoch: int) -> None:
        """One scalar each."""
        assert self.writer is not None
        for name, value in values.items():
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()

    def close(self) -> None:
        """Closes the file."""
        if self.writer is not None:
            self.writer.close()


class WeightsAndBiases:
    """A run of the project ``convit``, or of ``$WANDB_PROJECT``. With ``WANDB_MODE=offline`` it stays in the folder."""

    library = "wandb"

    def __init__(self, module: Any) -> None:
        self.module, self.run = module, None

    def check(self) -> None:
        """Whether there is a key, and the service takes it. Offline it needs none."""
        self.module.login(verify=True)

    def begin(self, event: RunBegan) -> None:
        """Begins a run, or goes on with that of the folder."""
        own = {} if os.environ.get("WANDB_PROJECT") else {"project": "convit"}
        named = {"dir": str(event.folder), "name": event.folder.name, "id": _id(event.folder), "resume": "allow"}
        self.run = self.module.init(config=dict(event.options), **named, **own)

    def log(self, values: Mapping[str, float], epoch: int) -> None:
        """All in one step, which is the epoch."""
        assert self.run is not None
        self.run.log(values, step=epoch)

    def close(self) -> None:
        """Waits until all is handed over."""
        if self.run is not None:
            self.run.finish()


TRACKERS: dict[str, type[TensorBoard | WeightsAndBiases]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}


@contextlib.contextmanager
def tracking(name: str, say: Callable[[str], None]) -> Iterator[Listener]:
    """Within it there is a listener that hands each epoch's figures to the tracker of that name.

    Args:
        name: one of ``TRACKERS``, or ``"none"``.
        say: told in one line what failed later on.

    Raises:
        InputError: its library is not installed; or, by the listener, it cannot start.
    """
    if name == "none":
        yield ignore
        return
    try:
        tracker = TRACKERS[name](importlib.import_module(TRACKERS[name].library))
    except ImportError as error:
        raise InputError(
            f"track: {name} is not installed; expected it: pip install 'convit[track]', or {name} alone"
        ) from error

    def tell(event: Event) -> None:
        match event:
            case Planned():
                with _one_line(name):
                    tracker.check()
            case RunBegan():
                with _one_line(name):
                    tracker.close()  # of the fold before
                    tracker.begin(event)
            case EpochEnded(record):
                try:
                    tracker.log(figures(record), record["epoch"])
                except Exception as error:  # a full disk, a network: libraries have errors of their own
                    say(f"{name}: epoch {record['epoch']} not tracked ({one_line(error)}); training goes on")

    try:
        yield tell
    finally:
        try:
            tracker.close()
        except Exception as error:
            say(f"{name}: not closed ({one_line(error)})")


@contextlib.contextmanager
def _one_line(name: str) -> Iterator[None]:
    """Turns a fault of a tracker at its start, of whatever type, into one line."""
    try:
        yield
    except Exception as error:
        expected = "a key, by 'wandb login', or WANDB_MODE=offline" if name == "wandb" else "it to write into the run"
        raise InputError(
            f"track: {name} does not start ({one_line(error)}); expected {expected}; nothing was trained: the same "
            "command tries again"
        ) from error


def _id(folder: Path) -> str:
    """What the run of this folder is called at Weights & Biases: the same when it goes on."""
    path = folder / IDS
    if path.is_file():
        try:
            return str(parse_json(read(path))["wandb"])
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path}: not readable ({one_line(error)}); expected it as it was, or deleted") from error
    name = secrets.token_hex(8)
    write_json(path, {"wandb": name})
    return name
