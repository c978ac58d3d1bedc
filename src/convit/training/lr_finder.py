"""The learning-rate range test, which suggests a peak learning rate."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from convit.events import Advanced, Listener, PassBegan, ignore
from convit.training.dry_run import begin_trial
from convit.training.options import Asked

LOWEST, HIGHEST, STEPS = 1e-7, 1.0, 100
"""The range of learning rates, and the number of steps from its lowest to its highest."""
DIVERGED = 4.0
"""The test ends where the smoothed loss is so many times its smallest."""
LEAST = 0.01
"""The fraction by which the loss has to fall, for a rate to be suggested."""
WIDTH = 3.0
"""Standard deviation of the Gaussian that smooths the losses, in steps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RateTest:
    """A learning-rate range test."""

    rates: NDArray[np.float64]
    """(steps,) the learning rate of each step."""
    losses: NDArray[np.float64]
    """(steps,) the loss of each step's images before it was made."""

    @property
    def smooth(self) -> NDArray[np.float64]:
        """(steps,) the losses, smoothed without a lag."""
        return smoothed(self.losses)

    @property
    def suggestion(self) -> float | None:
        """The learning rate at which the smoothed loss falls most steeply by log(rate).

        None if it falls by less than a hundredth: that is no more than noise.
        """
        smooth = self.smooth
        lowest = int(smooth.argmin())
        if smooth[lowest] > (1 - LEAST) * smooth[0]:
            return None
        steepest = int(np.diff(smooth[: lowest + 1]).argmin())
        return float(np.sqrt(self.rates[steepest] * self.rates[steepest + 1]))

    @property
    def lowest(self) -> float:
        """The learning rate at which the smoothed loss is smallest; with higher rates it does not fall further."""
        return float(self.rates[self.smooth.argmin()])


def smoothed(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) means with the weights of a Gaussian of 3 steps; at the ends, of what is there.

    >>> smoothed(np.array([2.0, 2.0, 2.0])).round(6).tolist()
    [2.0, 2.0, 2.0]
    """
    steps = np.arange(len(losses))
    weights = np.exp(-0.5 * ((steps[:, None] - steps[None]) / WIDTH) ** 2)
    means: NDArray[np.float64] = weights @ losses / weights.sum(axis=1)
    return means


class _Ramp:
    """A schedule: the learning rate grows by the same factor with every step."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.number = 0

    @property
    def rate(self) -> float:
        """That of step ``number``."""
        return LOWEST * (HIGHEST / LOWEST) ** (self.number / (STEPS - 1))

    def step_update(self, _: int) -> None:
        """Sets the rate; layers that learn slower than others keep their ratio."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * group.get("lr_scale", 1.0)


class _DivergedError(Exception):
    """The loss is no number any more, or far above its smallest."""


def find_lr(asked: Asked, tell: Listener = ignore) -> RateTest:
    """The learning-rate range test (Smith 2017): up to 100 steps of a run, from a rate of 1e-7 to 1.

    The steps are those of the run, with its model, images, augmentation and batch, and a function of its seed. The test
    ends early where the loss diverges. Nothing is written.

    Raises:
        InputError: what a run would raise before its first step.
    """
    _, trainer = begin_trial(asked, tell)
    learner, losses = trainer.learner, list[float]()
    ramp = _Ramp(learner.optimizer)
    learner.scheduler = ramp  # type: ignore[assignment]  # all that is asked of it is step_update

    def note(loss: float) -> float:
        losses.append(loss)
        if not math.isfinite(loss) or smoothed(np.array(losses))[-1] > DIVERGED * smoothed(np.array(losses)).min():
            raise _DivergedError
        return loss

    tell(PassBegan("learning-rate test", STEPS))
    rates = []
    batches = ((epoch, *one) for epoch in itertools.count() for one in enumerate(trainer.batches.of_epoch(epoch)))
    try:
        for ramp.number, (epoch, step, (images, target)) in zip(range(STEPS), batches, strict=False):
            rates.append(ramp.rate)
            learner.step(images, target, epoch, step, note)
            tell(Advanced(1, losses[-1]))
    except _DivergedError:
        pass
    finally:
        trainer.batches.close()
    finite = np.isfinite(losses)
    return RateTest(rates=np.array(rates)[finite], losses=np.array(losses)[finite])
