"""A learning curve: how the error falls with the number of images to learn from, and how sure that is.

The error is taken for a power law of the number n of images, which small and middling sets follow well (Hestness et
al., 2017):

    error(n) = exp(a + b log n),    b <= 0

a and b are the weighted least squares of log(error), the weights those of counts of mistakes: var(log e) = (1 - e) /
(e m) for an error e of m images. The intervals are a parametric bootstrap: the mistakes at each point are drawn anew
from a binomial distribution, the law is fitted to them, and 95% of what these laws say is taken. They hold what chance
the images of the evaluation bring, not what another seed of the training would, nor that the law may end.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convit.errors import InputError

DRAWS = 4000


@dataclass(frozen=True, slots=True)
class Point:
    """A training: from how many images it learned, and how many of those that it was measured on it got wrong."""

    images: int
    wrong: int
    measured: int

    @property
    def error(self) -> float:
        """The part that is wrong, with half a mistake more: none in few images does not mean none at all."""
        return (self.wrong + 0.5) / (self.measured + 1)


@dataclass(frozen=True, slots=True)
class Curve:
    """The law, and those of the bootstrap; a row of ``laws`` is (a, b)."""

    law: NDArray[np.float64]
    laws: NDArray[np.float64]

    def accuracy(self, images: float) -> tuple[float, float, float]:
        """What is expected of so many images to learn from, in percent, and the ends of its 95% interval."""
        low, high = np.percentile(_accuracies(self.laws, images), (2.5, 97.5)).tolist()
        return float(_accuracies(self.law[None], images)[0]), low, high

    def gain(self, images: float, more: float) -> tuple[float, float, float]:
        """By how many points ``more`` images would be better than ``images``, and the ends of its 95% interval."""
        gains = _accuracies(self.laws, more) - _accuracies(self.laws, images)
        low, high = np.percentile(gains, (2.5, 97.5)).tolist()
        return float((_accuracies(self.law[None], more) - _accuracies(self.law[None], images))[0]), low, high


def fitted(points: Sequence[Point]) -> Curve:
    """The law through some points, of at least two sizes.

    Raises:
        InputError: fewer sizes.

    Example:
        >>> curve = fitted([Point(100, 400, 1000), Point(200, 283, 1000), Point(400, 200, 1000)])
        >>> round(curve.accuracy(1600)[0])  # the error halves with four times the images
        90
    """
    if len({point.images for point in points}) < 2:
        raise InputError(f"points: got {len(points)} of one size, expected two sizes at least")
    sizes = np.log([point.images for point in points])
    errors = np.array([point.error for point in points])
    measured = np.array([point.measured for point in points])
    drawn = np.random.default_rng(0).binomial(measured, errors, (DRAWS, len(points)))
    return Curve(_law(sizes, errors[None], measured)[0], _law(sizes, (drawn + 0.5) / (measured + 1), measured))


def _law(sizes: NDArray[np.float64], errors: NDArray[np.float64], measured: NDArray[np.int64]) -> NDArray[np.float64]:
    """(rows, 2) a and b of each row of errors, ``(rows, points)``."""
    weights = errors * measured / (1 - errors)
    total, logs = weights.sum(axis=1), np.log(errors)
    at, up = (weights * sizes).sum(axis=1) / total, (weights * logs).sum(axis=1) / total
    offsets = sizes - at[:, None]
    slope = (weights * offsets * (logs - up[:, None])).sum(axis=1) / (weights * offsets**2).sum(axis=1)
    slope = np.minimum(slope, 0.0)  # more images do no harm
    return np.stack((up - slope * at, slope), axis=1)


def _accuracies(laws: NDArray[np.float64], images: float) -> NDArray[np.float64]:
    """In percent, by each law."""
    return 100 * (1 - np.minimum(1.0, np.exp(laws[:, 0] + laws[:, 1] * np.log(images))))
