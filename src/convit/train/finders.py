"""Values for two options, found by trying: the largest batch that fits, and a learning rate to begin with."""

import gc
import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from convit.data import shown
from convit.errors import InputError
from convit.train.config import TrainConfig
from convit.train.engine import Trainer
from convit.train.learner import Learner
from convit.train.memory import (
    activation_bytes,
    can_measure_pages,
    free_bytes,
    in_words,
    page_growth,
    random_batch,
)
from convit.train.observer import Observer
from convit.train.trial import begin_trial
from convit.train.workers import batches, end_workers

LOWEST, HIGHEST, STEPS = 1e-7, 1.0, 100
"""The range of learning rates, and in how many steps it is gone through."""
DIVERGED = 4.0
"""The test ends where the smoothed loss is so many times its smallest."""
LEAST = 0.01
"""The part of it that the loss has to fall by, for a rate to be suggested."""
WIDTH = 3.0
"""Standard deviation of the Gaussian that smooths the losses, in steps."""
MARGIN = 1.25
"""A step is only tried on a CPU if so many times what it is going to need is free."""


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
        """The learning rate at which the smoothed loss is smallest; from there on it does not learn any more."""
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


def find_lr(config: TrainConfig, observer: Observer) -> RateTest:
    """The learning-rate range test (Smith 2017): up to 100 steps of a run, from a rate of 1e-7 to 1.

    The steps are those of the run, with its model, images, augmentation and batch, and a function of its seed. The test
    ends early where the loss diverges. Nothing is written.

    Raises:
        InputError: what a run would raise before its first step.
    """
    trainer, _, _ = begin_trial(config, observer)
    learner, losses = trainer.learner, list[float]()
    ramp = _Ramp(learner.optimizer)
    learner.scheduler = ramp  # type: ignore[assignment]  # all that is asked of it is step_update

    def check(loss: float) -> None:
        losses.append(loss)
        if not math.isfinite(loss) or smoothed(np.array(losses))[-1] > DIVERGED * smoothed(np.array(losses)).min():
            raise _DivergedError

    observer.begin("learning-rate test", STEPS)
    rates = []
    try:
        for ramp.number, (epoch, step, batch) in zip(range(STEPS), _endless(trainer), strict=False):
            rates.append(ramp.rate)
            images, target = batch
            learner.step(images, target, epoch, step, check)
            observer.advance(1, losses[-1])
    except _DivergedError:
        pass
    finally:
        end_workers(trainer.loader)
    finite = np.isfinite(losses)
    return RateTest(rates=np.array(rates)[finite], losses=np.array(losses)[finite])


def _endless(trainer: Trainer) -> Iterator[tuple[int, int, Any]]:
    """(epoch, step, (images, target)) of a run, on and on."""
    for epoch in itertools.count():
        trainer.sampler.set_epoch(epoch)
        for step, batch in enumerate(batches(trainer.loader)):
            yield epoch, step, batch


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchSize:
    """What :func:`find_batch_size` found."""

    size: int
    """The largest power of two that fits."""
    reason: str
    """Why no larger one was taken."""


def find_batch_size(config: TrainConfig, observer: Observer) -> BatchSize:
    """The largest power of two that a step can be made of, by making steps of more and more images.

    The steps are those of the run: its model, precision, moving average, teacher and ``--accumulate``, on noise. On a
    GPU a size counts as too large when its step runs out of memory. On a CPU that would be too late, as the system ends
    processes then: twice the memory that the last step took, and a quarter of it more, has to be free. No more images
    than an epoch has are tried. Nothing is written, and what was learned is thrown away.

    Args:
        config: the options.
        observer: is told what each size took.

    Raises:
        InputError: what a run would raise before its first step; not even the smallest fits; a system that does not
            tell of its memory.
    """
    smallest = 1 << (max(2, config.optim.accumulate) - 1).bit_length()
    trainer, _, _ = begin_trial(config, observer)
    learner, plan = trainer.learner, trainer.plan
    if learner.device.type == "cpu" and not can_measure_pages():
        raise InputError("find-batch-size: got a CPU outside Linux, which does not tell of its memory; expected a GPU")
    most = shown(len(plan.train), plan.values.repeated_augmentation)
    found, size, taken = 0, smallest, 0
    while size <= most:
        needed = max(2 * taken, activation_bytes(learner, size))
        if learner.device.type == "cpu" and MARGIN * needed > (free := free_bytes()):
            reason = f"{size} would take about {in_words(needed)} more, and {in_words(free)} is free"
            break
        try:
            taken, seconds = _try(learner, size)
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
            reason = f"{size} is out of memory"
            break
        observer.message(f"{size} images a step: {in_words(taken)}, {size / seconds:,.0f} images/s")
        found, size = size, 2 * size
    else:
        reason = f"an epoch has {most} images"
    if not found:
        raise InputError(f"find-batch-size: not even {smallest} images fit ({reason}); expected a smaller --model")
    return BatchSize(size=found, reason=reason)


def _try(learner: Learner, size: int) -> tuple[int, float]:
    """Makes two steps, the first of which starts libraries; bytes and seconds that the second took."""
    images, target = random_batch(learner, size)
    seconds = [0.0]

    def step() -> None:
        began = time.perf_counter()
        learner.step(images, target, 0, 0, lambda loss: None)  # the loss is fetched, which waits for the device
        seconds.append(time.perf_counter() - began)

    try:
        if learner.device.type == "cuda":
            step()
            torch.cuda.reset_peak_memory_stats(learner.device)
            step()
            torch.cuda.synchronize(learner.device)
            return torch.cuda.max_memory_allocated(learner.device), seconds[-1]
        grown = page_growth(step) if can_measure_pages() else 0
        step()
        return grown, seconds[-1]
    finally:
        learner.optimizer.zero_grad(set_to_none=True)
        gc.collect()
        if learner.device.type == "cuda":
            torch.cuda.empty_cache()


def _out_of_memory(error: RuntimeError) -> bool:
    """The error of a GPU has a type of its own; those of a CPU and of Apple's have only their words."""
    said = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in said or "can't allocate memory" in said
