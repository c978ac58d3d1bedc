"""The files in the folder of one run."""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from convit.choices import RUN_FILES
from convit.classifier import CARD
from convit.classifier_config import read_config
from convit.classifier_folder import fold_folders
from convit.data import BadImage, ImageSet
from convit.data.select import Known
from convit.errors import InputError, brief, one_line
from convit.events import EpochEnded, Event, RunEnded, Said
from convit.files import MOST_JSON, MOST_LIST, check_output, kind_of, parse_json, printable, read, write, write_json
from convit.intervals import percent_with_interval
from convit.lock import FILE as LOCK
from convit.lock import locked
from convit.model_card import MARKER
from convit.options import make
from convit.options_file import read_yaml, to_yaml
from convit.training.history import check_history
from convit.training.look_ahead import check_begun
from convit.training.options import RUN_CONFIG, Asked
from convit.training.plan import Plan

CONFIG, PLAN, SPLIT, RECORD, SKIPPED = RUN_CONFIG, "plan.json", "split.json", "images.json", "skipped.json"
BEGINNING = {*(_FIRST := (SPLIT, RECORD, PLAN, SKIPPED)), *(f".{name}.tmp" for name in (*_FIRST, CONFIG)), LOCK}
"""Files of a start that was killed before it wrote ``config.yaml``: not yet a run."""
NOT_OF_THE_RUN = ("overwrite", "resume")
"""Options that say how a command begins, not what the run is."""


class RunFolder:
    """The folder of one run.

    ``config.yaml`` repeats the run. It is resumed from ``plan.json`` (config, facts and plan), ``split.json`` (split
    of each image), ``images.json`` (name, label and content of each image), ``skipped.json`` (the files that were left
    out) and ``checkpoints/`` (the exact state). ``metrics.jsonl`` has one line per epoch; ``model.safetensors`` and
    ``config.json`` are the best model; ``evaluation.json``, ``mistakes.csv``, ``report.html`` and the plots are
    written at the end; ``log.txt`` has all messages.
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

    # -- beginning -----------------------------------------------------------------------------------------------------

    def check_free(self, *, overwrite: bool) -> None:
        """Whether a new run may start here. Nothing is written.

        Raises:
            InputError: a folder that exists, unless it is a run and ``overwrite`` says to replace it; a place that
                cannot be written to.
        """
        if (taken := self.taken(overwrite=overwrite)) is not None:
            raise InputError(taken)
        check_output("out", self.path, folder=True)

    def taken(self, *, overwrite: bool) -> str | None:
        """Why no new run may start in a folder that exists, and what to do; None where one may."""
        exists = self.path.exists() and not (self.path.is_dir() and {p.name for p in self.path.iterdir()} <= BEGINNING)
        if not exists or (overwrite and self._is_ours()):
            return None
        if overwrite:
            return f"{self.path}: exists and is no run, so it is not overwritten; expected another --out"
        free = next(f"{self.path}-{n}" for n in range(2, 1000) if not Path(f"{self.path}-{n}").exists())
        what = f"a run: --resume {self.path} continues it, --overwrite replaces it" if self.is_run else "no run"
        return f"{self.path}: exists ({what}); expected a new folder, such as --out {free}"

    def check_run(self) -> None:
        """Whether there is a run to resume.

        Raises:
            InputError: there is none.
        """
        check_begun(self.path)
        for path in sorted(self.path.iterdir()):  # a run writes to its files: not to those of others, nor into a pipe
            if not path.is_dir() and (path.is_symlink() or not path.is_file()):
                found = "a link" if path.is_symlink() else kind_of(path)
                raise InputError(f"{path}: {found}; expected a file of the run itself, or none")

    def _is_ours(self) -> bool:
        """Whether all of the folder may go: many a folder that is no run has a ``config.yaml`` too. A run's has every
        option."""
        try:
            return self.is_run and set(self.read_options().to_dict()) - {*NOT_OF_THE_RUN} == set(
                read_yaml(self.path / CONFIG)
            )
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
        for pattern in RUN_FILES:
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

    def begin(
        self, plan: Plan, splits: Mapping[str, ImageSet], record: Mapping[str, Any], bad: Sequence[BadImage]
    ) -> None:
        """Writes what a run goes on from. ``config.yaml`` is the last: with it there is a run to resume."""
        write_json(self.path / SPLIT, {split: list(images.names) for split, images in splits.items()})
        write(self.path / RECORD, json.dumps(record, ensure_ascii=False) + "\n")
        if bad:
            write_json(self.path / SKIPPED, [{"name": image.name, "reason": image.reason} for image in bad])
        write_json(self.path / PLAN, plan.to_dict())
        write(self.path / CONFIG, to_yaml(plan.options, without=NOT_OF_THE_RUN))

    # -- going on ------------------------------------------------------------------------------------------------------

    def read_options(self) -> Asked:
        """The options of the run, as ``config.yaml`` has them.

        Raises:
            InputError: not what ``convit train`` wrote.
        """
        path = self.path / CONFIG
        try:
            return make(Asked, read_yaml(path))
        except InputError as error:
            raise InputError(f"{path}: {str(error).removeprefix(f'config: {path}: ')}") from error

    def read_plan(self) -> Plan:
        """The plan of the run.

        Raises:
            InputError: not what ``convit train`` wrote, or changed since.
        """
        path = self.path / PLAN
        values = self._read_json(PLAN)
        try:
            plan = Plan.from_dict(values)
            if plan.to_dict() == values:
                return plan
        except (KeyError, TypeError, ValueError, AttributeError, AssertionError, OverflowError) as error:
            raise _unreadable(path, error) from error
        if set(values["options"]) != set(plan.options.to_dict()):
            raise InputError(f"{path}: written by a version of convit with other options; expected that version")
        differs = first_difference(self.read_options().to_dict(), plan.options.to_dict())
        what = f": its {differs[0]} is {differs[2]}, that of {CONFIG} {differs[1]}" if differs else ""
        raise InputError(f"{path}: changed since the run began{what}; expected it as 'convit train' wrote it")

    def read_split(self) -> dict[str, list[str]]:
        """The names of the images of each split."""
        split = self._read_json(SPLIT)
        for name, images in split.items():
            if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
                raise _unreadable(self.path / SPLIT, f"{brief(name)} is {brief(images)}, no list of names")
        return split

    def read_record(self) -> dict[str, Any]:
        """What the images were, by split (:func:`convit.data.record.describe`)."""
        return self._read_json(RECORD)

    def read_skipped(self) -> tuple[BadImage, ...]:
        """The files that were left out."""
        if not (self.path / SKIPPED).is_file():
            return ()
        found: list[Any] = self._read_json(SKIPPED, list)
        for one in found:
            if not isinstance(one, dict) or not all(isinstance(one.get(key), str) for key in ("name", "reason")):
                raise _unreadable(self.path / SKIPPED, f"{brief(one)}, no name and reason")
        return tuple(BadImage(one["name"], one["reason"]) for one in found)

    def read_history(self) -> list[dict[str, Any]]:
        """A record for each epoch that is complete."""
        path = self.path / "metrics.jsonl"
        try:
            history = [parse_json(line, finite=False) for line in read(path, 4 * MOST_JSON).splitlines()]
            check_history(history)
            return history
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from error

    def known(self) -> Known:
        """What the folder says of the run's images, for those who choose images for its model."""
        if runs := fold_folders(self.path):
            return _together(RunFolder(runs[0]).known())
        class_names = tuple(read_config(self.path).class_names)
        if not self.is_run:  # a model that was shared, or config.yaml is gone: what it was opened from is not known
            split = self.read_split() if (self.path / SPLIT).is_file() else {}
            return Known(class_names=class_names, split=split)
        options, split = self.read_options(), self.read_split()
        noted = self._noted()
        if noted is not None:
            self._hold("config.json", list(class_names), noted[0])
            self._hold(SPLIT, dict(split), noted[1])
        return Known(
            class_names=class_names,
            root=options.data,
            split=split,
            contents={} if noted is None else noted[2],
            left_out=[image.name for image in self.read_skipped()],
            folders=options.split_folders,
            some_classes=options.classes is not None,
            some_images=options.fraction is not None or options.per_class is not None,
        )

    def _noted(self) -> tuple[list[str], dict[str, list[str]], dict[str, list[int]]] | None:
        """Class names, and by split the names and the contents of the images, as ``images.json`` has them; None without
        such a file, as in a folder that was shared without it."""
        if not (self.path / RECORD).is_file():
            return None
        record = self.read_record()
        try:
            splits = record["splits"].items()
            names = {split: list(images["names"]) for split, images in splits}
            contents = {split: list(images["contents"]) for split, images in splits}
            return list(record["class_names"]), names, contents
        except (KeyError, TypeError, AttributeError) as error:
            raise _unreadable(self.path / RECORD, error) from error

    def _hold(self, name: str, found: object, noted: object) -> None:
        """Raises :class:`InputError` for a file that is of other images than ``images.json``: another run's, or changed
        by hand."""
        if found != noted:
            raise InputError(
                f"{self.path / name}: not of the images in {RECORD}; expected both of one run, as it wrote them"
            )

    def _read_json(self, name: str, kind: type = dict) -> Any:
        path = self.path / name
        try:
            value = parse_json(read(path, MOST_LIST if name in (SPLIT, RECORD) else MOST_JSON))
            if not isinstance(value, kind):
                raise TypeError(f"a {type(value).__name__}")
            return value
        except (OSError, ValueError, TypeError) as error:
            raise _unreadable(path, error) from error

    # -- on the way ----------------------------------------------------------------------------------------------------

    def write_metrics(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Writes a line for each epoch."""
        write(self.path / "metrics.jsonl", "".join(json.dumps(record) + "\n" for record in history))

    def listen(self, event: Event) -> None:
        """Keeps what is said, and a line for each epoch, in ``log.txt``."""
        if isinstance(event, Said):
            self.log(event.text)
        elif isinstance(event, EpochEnded):
            record = event.record
            top5 = f"top-5 {record['val_top5']:.2f}%, " if "val_top5" in record else ""
            self.log(
                f"epoch {record['epoch']}/{event.epochs}: train loss {record['train_loss']:.4f}, "
                f"val loss {record['val_loss']:.4f}, "
                f"top-1 {percent_with_interval(record['val_top1'], record['val_images'])}, {top5}"
                f"{record['images_per_second']:.0f} images/s"
            )
        elif isinstance(event, RunEnded):
            for found in event.findings:
                self.log(f"{found.topic}: {found.text} {found.advice}".rstrip())

    def log(self, text: str) -> None:
        """Adds a line to ``log.txt``, with the time; on a full disk none, and training goes on."""
        with suppress(OSError), (self.path / "log.txt").open("a", encoding="utf-8") as stream:
            stream.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {printable(text)}\n")


def _together(known: Known) -> Known:
    """What the runs of several folds learned from together, by what one of them did: all but the test images."""
    splits = ("train", "val")
    return replace(
        known,
        split={"train": [name for split in splits for name in known.split.get(split, ())]},
        contents={"train": [content for split in splits for content in known.contents.get(split, ())]},
    )


def first_difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """The first name whose values differ, as messages have it, and both values; None if there is none.

    >>> first_difference({"lr": 0.1, "batch_size": 8}, {"lr": 0.1, "batch_size": 16})
    ('batch-size', 8, 16)
    """
    for name in (*before, *(name for name in now if name not in before)):
        if before.get(name) != now.get(name):
            return name.replace("_", "-"), before.get(name), now.get(name)
    return None


def _unreadable(path: Path, error: Exception | str) -> InputError:
    reason = getattr(error, "strerror", None)  # of an OSError, which repeats the path behind it
    said = reason or (one_line(error) if isinstance(error, Exception) else error)
    return InputError(f"{path}: not readable ({said}); expected what 'convit train' wrote")
