"""How many epochs end after a number of minutes: steps and evaluations are measured, then the plan is made for it."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from convit.data.select import Selection
from convit.errors import InputError, counted
from convit.events import ignore
from convit.training.engine import Measure, Trainer
from convit.training.evaluation import evenly
from convit.training.options import Asked
from convit.training.plan import Plan
from convit.training.planning import make_plan
from convit.training.run_folder import RunFolder
from convit.training.speed import Speed
from convit.training.stopping import StopRequest

TRIED = 3.0
"""Seconds for which each kind of work is measured, if there is so much of it."""
BATCHES = {"train": 24, "val": 8, "test": 1}
"""Work is measured on the images of at most so many batches."""
ENOUGH = 0.9
"""The part of its shortest form's time that the minutes have to be, or the run is refused."""


def fitted(asked: Asked, selection: Selection, plan: Plan, measure: Measure, began: float) -> Plan:
    """The plan with as many epochs as end nearest to ``asked.minutes``.

    Args:
        asked: the options, ``minutes`` among them.
        selection: the images.
        plan: made for them with the recipe's epochs; its steps are measured.
        measure: what the run measures after each epoch.
        began: the reading of ``time.perf_counter`` at which the minutes began.

    Raises:
        InputError: one epoch takes longer.
    """
    assert asked.minutes is not None
    speed = measured(plan, selection, measure)
    left = 60 * asked.minutes - (time.perf_counter() - began)
    least = max(1, asked.first_epochs or 0, math.ceil(asked.warmup_epochs or 0))
    shortest = speed.of(_with_epochs(asked, plan, least))
    if ENOUGH * shortest > max(left, 0):
        need = (60 * asked.minutes - left + shortest) / 60
        raise InputError(
            f"minutes: got {asked.minutes:g}, expected at least {need:.2g}: so long {counted(least, 'epoch')} of "
            f"{plan.images} images would take here, with all around; --fraction 0.5 learns from half of each class"
        )
    low, high = least, 2 * least
    while speed.of(_with_epochs(asked, plan, high)) < left:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if speed.of(_with_epochs(asked, plan, middle)) < left else (low, middle)
    plans = [_with_epochs(asked, plan, epochs) for epochs in (low, high)]
    nearest = min(plans, key=lambda made: abs(speed.of(made) - left))
    minutes = (60 * asked.minutes - left + speed.of(nearest)) / 60
    why = f"{nearest.epochs} (to end after {minutes:.1f} minutes: {of_a_step(speed, nearest)}, measured)"
    return replace(nearest, reasons={**nearest.reasons, "epochs": why})


def of_a_step(speed: Speed, plan: Plan) -> str:
    """How long a step takes, in words."""
    first = f", {1000 * speed.first_step:.0f} ms in the first epochs" if plan.options.first_epochs else ""
    return f"{1000 * speed.step:.0f} ms a step{first}"


def _with_epochs(asked: Asked, plan: Plan, epochs: int) -> Plan:
    """The plan with another number of epochs, and all that depends on it."""
    made = make_plan(replace(asked, minutes=None, epochs=epochs), plan.facts)
    return replace(made, given=plan.given, sources=plan.sources)


def measured(plan: Plan, selection: Selection, measure: Measure) -> Speed:
    """Trains and evaluates for some seconds, on some of the images, a model that is then thrown away."""
    size = max(64, plan.batch_size)
    some = {split: evenly(images, BATCHES[split] * size) for split, images in selection.splits.items()}
    with TemporaryDirectory() as folder:
        trainer = Trainer(plan, some, RunFolder(Path(folder)), ignore, StopRequest(), measure=measure)
        try:
            first = plan.options.first_epochs or 0
            step = _seconds(_steps(trainer, first))
            first_step = _seconds(_steps(trainer, 0)) if first else step
            began = time.perf_counter()
            result = trainer.validate()
            between = time.perf_counter()
            trainer.classifier.model.eval()
            measure(trainer.classifier, trainer.copies["val"])
            trainer.saver.save(model=True)
            end = time.perf_counter()
        finally:
            trainer.batches.close()
    return Speed(
        first_step=first_step, step=step, evaluated=(between - began) / result.num_images, epoch_end=end - between
    )


def _steps(trainer: Trainer, epoch: int) -> Iterator[Callable[[], float]]:
    """The steps of an epoch, each to be made."""
    for number, (images, target) in enumerate(trainer.batches.of_epoch(epoch)):
        yield partial(trainer.learner.step, images, target, epoch, number)


def _seconds(steps: Iterator[Callable[[], float]]) -> float:
    """Mean seconds of a step with the loading of its images, without the first, which prepares much."""
    next(steps)()
    count, began = 0, time.perf_counter()
    for step in steps:
        step()
        count += 1
        if time.perf_counter() - began > TRIED:
            break
    return (time.perf_counter() - began) / max(1, count)
