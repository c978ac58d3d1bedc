"""What more images would give: a run's training repeated on a quarter and a half of its images, and the law fitted."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convit.choices import Device
from convit.entry import start
from convit.errors import InputError, one_line
from convit.events import Advanced, EpochEnded, Event, Listener, PassBegan, Said
from convit.experiments.learning_curve import Point, fitted
from convit.files import parse_json, read
from convit.options import make
from convit.training.evaluation_files import RESULT
from convit.training.options import Asked, asked_from
from convit.training.plan import Plan
from convit.training.recipes import BY_EPOCHS
from convit.training.run_folder import RunFolder

PARTS = (0.25, 0.5)
"""The parts of its images that are learned from besides."""
TIMES = (2, 4)
"""It is forecast for so many times the images."""
FOLDER = "forecast"


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """How good a model is by the number of images that it learns from; accuracies are in percent."""

    split: str
    """What was measured on."""
    points: tuple[Point, ...]
    """The trainings, the smallest first; the last is the run itself."""
    more: Mapping[int, tuple[float, float, float]]
    """Times as many images -> the accuracy that is forecast, and its 95% interval."""
    gains: Mapping[int, tuple[float, float, float]]
    """Times as many images -> by how many points that is better than now, and its 95% interval."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        now = self.points[-1].images
        trained = [
            {"images": point.images, "top1": 100 * (1 - point.wrong / point.measured), "measured": point.measured}
            for point in self.points
        ]
        forecast = [
            {"images": times * now, "top1": self.more[times][0], "interval": list(self.more[times][1:])}
            for times in self.more
        ]
        return {"split": self.split, "trained": trained, "forecast": forecast}

    @property
    def conclusion(self) -> str:
        """Whether more images are worth it, in a sentence."""
        gain, low, high = self.gains[TIMES[0]]
        if low < 0.5:
            return (
                f"Whether more images help cannot be told from so few measured ones: twice as many may give {low:.0f} "
                f"to {high:.0f} points more."
            )
        return f"Twice as many images would give about {gain:.0f} points more ({low:.0f} to {high:.0f})."


def forecast(run: Path, tell: Listener, *, workers: int | None = None, device: Device | None = None) -> Forecast:
    """Trains as a run did on a part of its images, and measures on the same images as it did.

    The trainings lie in ``RUN/forecast/``; those that are complete are not made again.

    Args:
        run: the folder of a run that is complete.
        tell: a listener.
        workers: processes that load images; None for as many as the run had.
        device: where to compute; None for where the run did.

    Raises:
        InputError: no such run, or one that cannot be repeated.
        Stopped: Ctrl-C or SIGTERM; the same call goes on.
    """
    folder = RunFolder(run)
    if not (run / RESULT).is_file():
        raise InputError(f"run: {run} has no {RESULT}; expected a run that is complete: 'convit train --resume {run}'")
    plan = folder.read_plan()
    split, last = _point(run, plan)
    measured_on = folder.read_split()[split]
    points = []
    for part in PARTS:
        where = RunFolder(run / FOLDER / f"{part:g}")
        tell(Said(f"learning from {part:g} of the {plan.images} images"))
        places = {name: v for name, v in (("workers", workers), ("device", device)) if v is not None}
        _train(_asked(plan, part, where.path, places), where, tell)
        if where.read_split()[split] != measured_on:
            raise InputError(f"{where.path}: measured on other images than {run}; delete it to make that run again")
        points.append(_point(where.path, where.read_plan())[1])
    curve = fitted([*points, last])
    return Forecast(
        split=split,
        points=(*points, last),
        more={times: curve.accuracy(times * last.images) for times in TIMES},
        gains={times: curve.gain(last.images, times * last.images) for times in TIMES},
    )


def _asked(plan: Plan, part: float, out: Path, places: Mapping[str, Any]) -> Asked:
    """What the run was asked, of a part of its images; their augmentation is the run's."""
    augmentation = {name: getattr(plan.options, name) for name in BY_EPOCHS}
    given = augmentation | {
        name: value for name, value in plan.given.items() if name not in ("overwrite", "resume", "out")
    }
    if per_class := given.get("per_class"):
        given["per_class"] = max(1, round(part * per_class))
    else:
        given["fraction"] = part * (given.get("fraction") or 1.0)
    return make(Asked, {**given, "data": plan.facts.root, "out": str(out), **places})


def _train(asked: Asked, where: RunFolder, tell: Listener) -> None:
    """Makes a run, goes on with one that was stopped, or leaves one that is complete."""

    def without_lines(event: Event) -> None:
        if isinstance(event, PassBegan | Advanced | EpochEnded):
            tell(event)

    if not (where.path / RESULT).is_file():
        start(asked_from(None, {"resume": where.path}) if where.is_run else asked, without_lines)
    shutil.rmtree(where.checkpoints, ignore_errors=True)  # of no more use


def _point(run: Path, plan: Plan) -> tuple[str, Point]:
    """What a complete run was measured on, and how it did."""
    path = run / RESULT
    try:
        evaluation = parse_json(read(path))
        confusion = np.array(evaluation["confusion"], dtype=np.int64)
        measured = int(confusion.sum())
        point = Point(plan.images, measured - int(np.trace(confusion)), measured)
        split = str(evaluation["split"])
        if split not in plan.facts.counts or measured < 1 or confusion.shape[0] != confusion.shape[-1]:
            raise ValueError(f"the split {split[:20]!r} of {measured} images")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not readable ({one_line(error)}); expected what 'convit train' wrote") from error
    return split, point
