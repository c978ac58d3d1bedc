"""Each epoch's figures to TensorBoard or Weights & Biases, besides the run folder's own ``metrics.jsonl``."""

import contextlib
import importlib
import json
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from convit.classifier import Classifier
from convit.data import ImageSet
from convit.errors import InputError
from convit.train import Observer

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


def figures(record: dict[str, Any]) -> dict[str, float]:
    """The numbers of an epoch by name, with the mean gate of every layer.

    >>> figures({"epoch": 2, "val_top1": 97.0, "gates": [[0.5, 0.7], [0.1, 0.3]]})
    {'accuracy/top-1': 97.0, 'gate/layer 1': 0.6, 'gate/layer 2': 0.2}
    """
    gates = {f"gate/layer {i}": sum(layer) / len(layer) for i, layer in enumerate(record.get("gates", ()), start=1)}
    return {NAMES[key]: value for key, value in record.items() if key in NAMES} | gates


class Together(Observer):
    """Several observers as one: each is told everything, and what they measure is put together."""

    def __init__(self, *observers: Observer) -> None:
        self.observers = observers

    def message(self, text: str) -> None:
        """Tells all."""
        for observer in self.observers:
            observer.message(text)

    def begin(self, what: str, images: int, done: int = 0) -> None:
        """Tells all."""
        for observer in self.observers:
            observer.begin(what, images, done)

    def advance(self, images: int, loss: float | None = None) -> None:
        """Tells all."""
        for observer in self.observers:
            observer.advance(images, loss)

    def measure(self, classifier: Classifier, images: ImageSet) -> dict[str, Any]:
        """Asks all."""
        return {key: value for one in self.observers for key, value in one.measure(classifier, images).items()}

    def check(self) -> None:
        """Asks all."""
        for observer in self.observers:
            observer.check()

    def begin_run(self, folder: Path, config: dict[str, Any], done: int) -> None:
        """Tells all."""
        for observer in self.observers:
            observer.begin_run(folder, config, done)

    def end_epoch(self, record: dict[str, Any], epochs: int) -> None:
        """Tells all."""
        for observer in self.observers:
            observer.end_epoch(record, epochs)


class Tracker(Observer, ABC):
    """Hands each epoch's figures to a service. One that fails later on does not end the training.

    Args:
        say: told in one line what failed.

    Raises:
        InputError: its library is not installed.
    """

    library: str
    """What is imported."""
    package: str
    """What is installed for it."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        try:
            self.module: Any = importlib.import_module(self.library)
        except ImportError as error:
            raise InputError(
                f"track: {self.package} is not installed; expected it: pip install 'convit[track]', or {self.package} "
                "alone"
            ) from error

    def end_epoch(self, record: dict[str, Any], epochs: int) -> None:
        """Hands over what a tracker shows."""
        try:
            self.log(figures(record), record["epoch"])
        except Exception as error:  # a full disk, a network: libraries have errors of their own
            self.say(f"{self.package}: epoch {record['epoch']} not tracked ({_line(error)}); training goes on")

    @abstractmethod
    def log(self, values: dict[str, float], epoch: int) -> None:
        """The figures of an epoch."""

    @abstractmethod
    def close(self) -> None:
        """No more of this run."""


class TensorBoard(Tracker):
    """Event files in the run's folder, for ``tensorboard --logdir RUN/tensorboard``. A resumed run adds to them."""

    library, package = "torch.utils.tensorboard", "tensorboard"
    writer: Any = None

    def begin_run(self, folder: Path, config: dict[str, Any], done: int) -> None:
        """Epochs after those that are done are hidden: the run makes them again."""
        self.writer = self.module.SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1 if done else None)

    def log(self, values: dict[str, float], epoch: int) -> None:
        """One scalar each."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()

    def close(self) -> None:
        """Closes the file."""
        if self.writer is not None:
            self.writer.close()


class WeightsAndBiases(Tracker):
    """A run of the project ``convit``, or of ``$WANDB_PROJECT``. With ``WANDB_MODE=offline`` it stays in the folder."""

    library, package = "wandb", "wandb"
    run: Any = None

    def check(self) -> None:
        """Whether there is a key, and the service takes it. Offline it needs none."""
        with _one_line():
            self.module.login(verify=True)

    def begin_run(self, folder: Path, config: dict[str, Any], done: int) -> None:
        """Begins a run, or goes on with that of the folder."""
        with _one_line():
            self.run = self.module.init(
                dir=str(folder), name=folder.name, config=config, id=_id(folder), resume="allow", **_project()
            )

    def log(self, values: dict[str, float], epoch: int) -> None:
        """All in one step, which is the epoch."""
        self.run.log(values, step=epoch)

    def close(self) -> None:
        """Waits until all is handed over."""
        if self.run is not None:
            self.run.finish()


TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}


@contextlib.contextmanager
def tracking(name: str, say: Callable[[str], None]) -> Iterator[Observer]:
    """Within it there is the tracker of that name; for ``"none"`` an observer that does nothing.

    Raises:
        InputError: its library is not installed.
    """
    if name == "none":
        yield Observer()
        return
    tracker = TRACKERS[name](say)
    try:
        yield tracker
    finally:
        try:
            tracker.close()
        except Exception as error:
            say(f"{tracker.package}: not closed ({_line(error)})")


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """Turns a fault of wandb at its start, of whatever type, into one line."""
    try:
        yield
    except Exception as error:
        raise InputError(
            f"track: wandb does not start ({_line(error)}); expected a key, by 'wandb login', or WANDB_MODE=offline; "
            "nothing was trained: the same command tries again"
        ) from error


def _id(folder: Path) -> str:
    """What the run of this folder is called at Weights & Biases: the same when it goes on."""
    path = folder / IDS
    if path.is_file():
        return str(json.loads(path.read_text())["wandb"])
    name = secrets.token_hex(8)
    path.write_text(json.dumps({"wandb": name}) + "\n")
    return name


def _project() -> dict[str, str]:
    return {} if os.environ.get("WANDB_PROJECT") else {"project": "convit"}


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
