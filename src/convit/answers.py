"""What a model answers for pictures: the best classes, whether it is none of them, and the classes it could be.

On NumPy alone: a classifier and an exported file give the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convit.calibration import NOT_CALIBRATED, Calibration, probabilities_of, scores
from convit.errors import InputError, brief, is_number
from convit.prediction import Prediction, ranked


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a model answers for one picture."""

    predictions: list[Prediction]
    """The most probable classes, best first."""
    score: float | None = None
    """How much it is like the pictures that the model learned from (:func:`convit.calibration.scores`); None where no
    rate of false alarms was asked for, as the next."""
    none_of_these: bool | None = None
    """Whether the score is below the threshold."""
    classes: tuple[str, ...] | None = None
    """The prediction set, most probable first: with the coverage that was asked for it has the true class; None where
    none was."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Thresholds:
    """Of a model, for a rate of false alarms and a coverage; None for what was not asked for."""

    reject: float | None
    """A picture with a score below it is none of the classes."""
    coverage: float | None
    """The prediction set has the classes of at least this probability, and the most probable one in any case."""


def thresholds(calibration: Calibration | None, reject: float | None, coverage: float | None) -> Thresholds:
    """What a model has for these.

    Args:
        calibration: the model's.
        reject: the rate of false alarms: the part of pictures of the model's classes that may be taken for none.
        coverage: how often a prediction set is to have the true class.

    Raises:
        InputError: a model without calibration; other values; or too few validation images to tell.
    """
    for option, value in (("reject", reject), ("coverage", coverage)):
        if value is not None and not is_number(value):
            raise InputError(f"{option}: got {brief(value)}, expected a number between 0 and 1")
        if value is not None and calibration is None:
            raise InputError(
                f"{option}: got {value:g} for a model that is {NOT_CALIBRATED}; expected one run, "
                "of a training that came to its end, and one view"
            )
    if calibration is None:
        return Thresholds(reject=None, coverage=None)
    return Thresholds(
        reject=None if reject is None else calibration.reject_threshold(reject),
        coverage=None if coverage is None else calibration.set_threshold(coverage),
    )


def in_sets(probabilities: NDArray[Any], threshold: float) -> NDArray[np.bool_]:
    """Which classes are in the prediction set of each picture, ``(N, classes)``.

    >>> in_sets(np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.1]]), 0.25).tolist()
    [[True, True, False], [True, False, False]]
    """
    found: NDArray[np.bool_] = probabilities >= threshold
    found[np.arange(len(found)), probabilities.argmax(axis=1)] = True
    return found


def answers(logits: NDArray[Any], class_names: Sequence[str], top_k: int, wanted: Thresholds) -> list[Answer]:
    """An answer for each row of ``(N, classes)`` logits, which are divided by the temperature already."""
    probabilities = probabilities_of(logits)
    best = ranked(probabilities, class_names, top_k)
    every = ranked(probabilities, class_names, len(class_names)) if wanted.coverage is not None else best
    sizes = None if wanted.coverage is None else in_sets(probabilities, wanted.coverage).sum(axis=1)
    found = scores(logits)
    return [
        Answer(
            predictions=best[i],
            score=None if wanted.reject is None else float(found[i]),
            none_of_these=None if wanted.reject is None else bool(found[i] < wanted.reject),
            classes=None if sizes is None else tuple(p.class_name for p in every[i][: sizes[i]]),
        )
        for i in range(len(logits))
    ]
