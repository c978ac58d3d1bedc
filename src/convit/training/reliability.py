"""How far a model's probabilities can be relied on: calibration error, likelihood, Brier score, with intervals."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from convit.calibration import NOT_CALIBRATED, Calibration

BINS = 15
"""Of equal width, from 0 to 1, as in most papers since Guo et al. (2017)."""
DRAWS = 1000
"""Bootstrap samples of the images."""
LEVELS = (0.025, 0.975)
"""What a 95% interval leaves on either side."""


class Estimate(NamedTuple):
    """A measured value and its 95% interval."""

    value: float
    low: float
    high: float

    def shown(self, digits: int = 4, percent: bool = False) -> str:
        """As it is printed.

        >>> Estimate(0.0312, 0.02, 0.041).shown(1, percent=True)
        '3.1% (2.0 to 4.1)'
        """
        value, low, high = (100 * number if percent else number for number in self)
        return f"{value:.{digits}f}{'%' if percent else ''} ({low:.{digits}f} to {high:.{digits}f})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """Of the probabilities that a model gives N images. Lower is better, for all of them."""

    nll: Estimate
    """Negative log likelihood: the mean of ``-ln p_y`` in nats, y the true class."""
    brier: Estimate
    """Brier score: the mean over images of ``sum_c (p_c - [c = y])^2``, 0 to 2."""
    ece: Estimate
    """Expected calibration error: ``sum_b n_b / N |accuracy_b - probability_b|`` over :data:`BINS` bins of the highest
    probability, with the accuracy and the mean probability of the n_b images of a bin; 0 to 1."""
    ece_by_chance: float
    """What the expected calibration error of a model whose probabilities are exact stays below, 95 times in 100, on so
    many images with these probabilities: a measured one below it is no sign of a fault."""
    counts: NDArray[np.int64]
    """(BINS,) images."""
    confidence: NDArray[np.float64]
    """(BINS,) mean of their highest probability; 0 where there are none."""
    right: NDArray[np.int64]
    """(BINS,) of them the class of the highest probability is the true one."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        estimates = {name: getattr(self, name) for name in ("ece", "nll", "brier")}
        return {
            **{name: found.value for name, found in estimates.items()},
            **{f"{name}_interval": [found.low, found.high] for name, found in estimates.items()},
            "ece_by_chance": self.ece_by_chance,
            "reliability": [
                {
                    "from": bin_ / BINS,
                    "to": (bin_ + 1) / BINS,
                    "images": int(self.counts[bin_]),
                    "probability": float(self.confidence[bin_]),
                    "accuracy": int(self.right[bin_]) / int(self.counts[bin_]),
                }
                for bin_ in np.flatnonzero(self.counts).tolist()
            ],
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Reliability:
    """Scores of a model's probabilities, without its temperature and with it."""

    calibration: Calibration | None
    before: Scores
    """At temperature 1."""
    after: Scores | None
    """At the model's temperature; None where it has none."""
    fitted_here: bool
    """Whether the temperature was fitted on images among these, so that ``after`` is a little too good."""

    def lines(self) -> list[str]:
        """What is said of it."""
        if self.calibration is None or self.after is None:
            return [f"{NOT_CALIBRATED}; {_figures(self.before)}", _by_chance(self.before)]
        here = "; it was fitted on images among these, so expect slightly more on others" if self.fitted_here else ""
        return [
            f"{self.calibration}{here}",
            f"before: {_figures(self.before)}",
            f"after:  {_figures(self.after)}",
            _by_chance(self.after),
        ]

    def summary(self) -> str:
        """The same in a sentence, for a newcomer."""
        scores = self.before if self.after is None else self.after
        before = "" if self.after is None else f", by {self.before.ece.value:.1%} before calibration"
        return (
            f"They are off by {scores.ece.value:.1%} on average{before}; with exact ones it would be up to "
            f"{scores.ece_by_chance:.1%} by chance on so many images."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "temperature": None if self.calibration is None else self.calibration.temperature,
            "fitted_on": None if self.calibration is None else self.calibration.images,
            "fitted_here": self.fitted_here,
            "bins": BINS,
            "before": self.before.to_dict(),
            **({} if self.after is None else {"after": self.after.to_dict()}),
        }


def _figures(scores: Scores) -> str:
    return (
        f"calibration error {scores.ece.shown(1, percent=True)}, loss {scores.nll.shown()}, "
        f"Brier score {scores.brier.shown()}"
    )


def _by_chance(scores: Scores) -> str:
    return (
        f"(95% intervals; expected calibration error of {BINS} bins of equal width: exact probabilities would "
        f"have up to {scores.ece_by_chance:.1%} on so many images)"
    )


def scores_of(losses: ArrayLike, brier: ArrayLike, probability: ArrayLike, right: ArrayLike) -> Scores:
    """The scores of N images, each argument ``(N,)``; the same for the same values.

    Intervals are of :data:`DRAWS` bootstrap samples: of the two means their quantiles; of the calibration error, which
    is too high on few images, and on resampled ones again by as much, they are mirrored (the basic bootstrap).

    Args:
        losses: ``-ln p_y``.
        brier: the Brier score of each image.
        probability: the highest one.
        right: whether its class is the true one.
    """
    means = np.stack((np.asarray(losses, np.float64), np.asarray(brier, np.float64)))
    p, hit = np.asarray(probability, np.float64), np.asarray(right, bool)
    bins, images = np.minimum((p * BINS).astype(np.int64), BINS - 1), len(p)
    rng = np.random.default_rng(0)
    drawn = np.empty((DRAWS, 3))
    by_chance = np.empty(DRAWS)
    for draw in range(DRAWS):
        times = np.bincount(rng.integers(images, size=images), minlength=images)
        drawn[draw, :2] = means @ times / images
        drawn[draw, 2] = _ece(bins, times * (hit - p))
        by_chance[draw] = _ece(bins, (rng.random(images) < p) - p)
    low, high = np.quantile(drawn, LEVELS, axis=0)
    ece = _ece(bins, hit - p)
    counts = np.bincount(bins, minlength=BINS)
    return Scores(
        nll=Estimate(float(means[0].mean()), float(low[0]), float(high[0])),
        brier=Estimate(float(means[1].mean()), float(low[1]), float(high[1])),
        ece=Estimate(ece, min(ece, max(0.0, 2 * ece - float(high[2]))), max(ece, 2 * ece - float(low[2]))),
        ece_by_chance=float(np.quantile(by_chance, 0.95)),
        counts=counts,
        confidence=np.bincount(bins, weights=p, minlength=BINS) / np.maximum(counts, 1),
        right=np.bincount(bins, weights=hit, minlength=BINS).astype(np.int64),
    )


def _ece(bins: NDArray[np.int64], excess: NDArray[np.float64]) -> float:
    """``sum_b |sum of the excess of the images in b| / N``; the excess of an image is right (1 or 0) less probability,
    times how often it counts."""
    return float(np.abs(np.bincount(bins, weights=excess, minlength=BINS)).sum() / len(bins))
