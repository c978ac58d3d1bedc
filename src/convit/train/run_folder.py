"""A run's folder: what is in it, and who may write there."""

import json
import shutil
import time
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import yaml

from convit.classifier import CARD, read_config
from convit.data import BadImage, ImageSet
from convit.errors import InputError
from convit.lock import FILE as LOCK
from convit.lock import locked
from convit.model_card import MARKER
from convit.train.config import TrainConfig
from convit.train.legacy import as_it_was

CONFIG = "config.yaml"
IDENTITY = "identity.json"
OWN = (
    *("split.json", IDENTITY, "skipped.json", "config.json", "model.safetensors", "metrics.jsonl", "evaluation.json"),
    *("curves.png", "gates.png", "confusion.png", "log.txt", "checkpoints", "evaluation-*", "inspect"),
    *("mistakes.csv", "mistakes.png", "tensorboard", "wandb", "tracking.json", CONFIG),
)
"""Everything that a run, and its evaluations, write into the folder, in the order in which ``--overwrite`` removes it:
half removed it is still a run to overwrite, and none to resume."""

_FIRST = ("split.json", IDENTITY, "skipped.json")
BEGINNING = {*_FIRST, *(f".{name}.tmp" for name in (*_FIRST, CONFIG)), LOCK}
"""What a start that was killed before it wrote ``config.yaml`` leaves: nothing of a run yet."""


class RunFolder:
    """The folder of one run.

    ``config.yaml`` repeats the run; ``metrics.jsonl`` has a line an epoch; ``model.safetensors`` and ``config.json``
    are the best model; ``split.json`` says which image was in which part, ``identity.json`` what the images were (see
    :mod:`convit.train.identity`), ``skipped.json`` which files were left out;
    ``checkpoints/`` is the exact state; ``evaluation.json``, ``mistakes.csv`` and the pictures come at the end;
    ``log.txt`` has all that was said.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"

    @property
    def is_run(self) -> bool:
        """Whether a run was started here."""
        return (self.path / CONFIG).is_file()

    @property
    def has_metrics(self) -> bool:
        """Whether an epoch was completed."""
        return (self.path / "metrics.jsonl").is_file()

    @property
    def has_identity(self) -> bool:
        """Whether it is written down what the run learns from: earlier versions did not."""
        return (self.path / IDENTITY).is_file()

    def check_free(self, *, resume: bool, overwrite: bool) -> None:
        """Whether a run may start here. Nothing is written.

        Raises:
            InputError: a folder that exists, unless it is a run and ``resume`` or ``overwrite`` says what to do with
                it; or no run to resume.
        """
        if resume and not self.is_run:
            raise InputError(
                f"{self.path}: no run to resume; expected a run folder in --out (leave out --resume to start one)"
            )
        exists = self.path.exists() and not (self.path.is_dir() and {p.name for p in self.path.iterdir()} <= BEGINNING)
        if overwrite and exists and not self._is_ours():
            raise InputError(f"{self.path}: exists and is no run, so it is not overwritten; expected another --out")
        if exists and not (resume or overwrite):
            free = next(f"{self.path}-{n}" for n in range(2, 1000) if not Path(f"{self.path}-{n}").exists())
            what = "a run, add --resume to continue it, --overwrite to replace it" if self.is_run else "no run"
            raise InputError(f"{self.path}: exists ({what}); expected a new folder, such as --out {free}")

    def _is_ours(self) -> bool:
        """Whether all of the folder may go: many a folder that is no run has a ``config.yaml`` too."""
        try:
            return self.is_run and bool(self.read_config())
        except InputError:
            return False

    def locked(self) -> AbstractContextManager[int]:
        """Within it no other process trains here. The folder is made if need be.

        Raises:
            InputError: another one does.
        """
        return locked(self.path, "trains")

    def clear(self) -> None:
        """Removes what a run writes, and nothing that somebody put beside it."""
        for pattern in OWN:
            for entry in self.path.glob(pattern):
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
        card = self.path / CARD
        if card.is_file() and MARKER.encode() in card.read_bytes():  # of the old model, by save_pretrained
            card.unlink()

    def discard(self) -> None:
        """Removes the run, and the folder if nothing else is in it."""
        self.clear()
        with suppress(OSError):  # it is still locked, and another process may take the folder at once
            (self.path / LOCK).unlink()
            self.path.rmdir()

    def read_config(self) -> TrainConfig:
        """The options of the run."""
        path = self.path / CONFIG
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
            return TrainConfig.from_dict(as_it_was(values, self._crop_pct()))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    def _crop_pct(self) -> float:
        """Of the model in the folder, if there is one."""
        try:
            return read_config(self.path).preprocess.crop_pct
        except InputError:
            return 1.0

    def write_config(self, config: TrainConfig) -> None:
        """Writes the options, complete."""
        self._write(CONFIG, yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True))

    def write_split(self, parts: dict[str, ImageSet | None]) -> None:
        """Writes the names of the images of each part."""
        self.write_json("split.json", split_names(parts))

    def read_split(self) -> dict[str, list[str]]:
        """What :meth:`write_split` wrote."""
        path = self.path / "split.json"
        try:
            split = json.loads(path.read_bytes())
            return {part: [str(name) for name in names] for part, names in split.items()}
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise unreadable(path, error) from error

    def write_identity(self, identity: dict[str, Any]) -> None:
        """Writes what the run learns from."""
        self._write(IDENTITY, json.dumps(identity, ensure_ascii=False) + "\n")

    def read_identity(self) -> dict[str, Any]:
        """What :meth:`write_identity` wrote."""
        path = self.path / IDENTITY
        try:
            return dict(json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            raise unreadable(path, error) from error

    def write_skipped(self, bad: list[BadImage]) -> None:
        """Writes which files were left out, and why."""
        self.write_json("skipped.json", [{"name": image.name, "reason": image.reason} for image in bad])

    def write_metrics(self, history: list[dict[str, Any]]) -> None:
        """Writes a line for each epoch."""
        self._write("metrics.jsonl", "".join(json.dumps(record) + "\n" for record in history))

    def write_json(self, name: str, value: Any) -> None:
        """Writes one JSON document."""
        self._write(name, json.dumps(value, indent=1, ensure_ascii=False) + "\n")

    def log(self, text: str) -> None:
        """Adds a line to ``log.txt``, with the time."""
        with (self.path / "log.txt").open("a", encoding="utf-8") as stream:
            stream.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def _write(self, name: str, text: str) -> None:
        """Writes a file whole or not at all."""
        temporary = self.path / f".{name}.tmp"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(self.path / name)


def unreadable(path: Path, error: Exception) -> InputError:
    """What to raise for a file of a run that is not what ``convit train`` wrote."""
    return InputError(f"{path}: not readable ({error}); expected what 'convit train' wrote")


def split_names(parts: dict[str, ImageSet | None]) -> dict[str, list[str]]:
    """The names of the images of each part that there is."""
    return {part: list(images.names) for part, images in parts.items() if images is not None}
