"""Describes a run without starting it: what would be done, and its cost. Nothing is written."""

import os
import time

from convit.data.select import Selection
from convit.errors import InputError, counted
from convit.events import Listener, Planned, Said, ignore
from convit.models.variants import multiply_adds
from convit.training import watch
from convit.training.duration import fitted, measured, of_a_step
from convit.training.engine import Measure, Trainer, measure_nothing
from convit.training.learner import decided
from convit.training.options import Asked
from convit.training.plan import Plan
from convit.training.planning import planned
from convit.training.report import introduction
from convit.training.run_folder import RunFolder
from convit.training.speed import time_words
from convit.training.stopping import StopRequest

POINTS = 60
"""The learning rate is shown at so many places of the schedule."""
BARS = "▁▂▃▄▅▆▇█"


def begin_trial(asked: Asked, tell: Listener = ignore) -> tuple[Selection, Trainer]:
    """The images of a run and a trainer that stands at its beginning.

    Nothing is written, so a run that is in its folder is no hindrance.

    Raises:
        InputError: data or options that do not work, several processes, or a run to resume.
        SystemExit: of several processes this is not the one that says so.
    """
    if (size := os.environ.get("WORLD_SIZE", "1")) != "1":
        if os.environ.get("RANK", "0") != "0":
            time.sleep(watch.GRACE)
            raise SystemExit(2)
        raise InputError(f"WORLD_SIZE: got {size} processes for a trial, expected one, without a launcher")
    if asked.resume is not None:
        raise InputError("resume: got it for a trial, which begins from scratch; expected a trial without --resume")
    began = time.perf_counter()
    selection, plan = planned(asked, tell)
    if asked.minutes is not None:
        plan = fitted(asked, selection, plan, measure_nothing, began)
    folder = RunFolder(decided(plan.options.out))
    tell(Planned(folder.path))  # a tracker that cannot start says so
    return selection, Trainer(plan, selection.splits, folder, ignore, StopRequest())


def dry_run(asked: Asked, tell: Listener, *, measure: Measure = measure_nothing) -> None:
    """Describes what :func:`convit.training.train` would do with these options, or raises the error that it would.

    It tells data, decisions, model, operations, steps, learning rate, memory, disk and time. For the time, a model that
    is then thrown away is trained and evaluated for some seconds.

    Args:
        asked: the options.
        tell: is told, line by line.
        measure: what the run would measure after each epoch.

    Raises:
        InputError: what a run would raise before its first step, unless it is that its folder exists.
    """
    selection, trainer = begin_trial(asked, tell)
    for line in (*introduction(trainer, selection), *_work(trainer)):
        tell(Said(line))
    if asked.minutes is None:  # else the reason for the number of epochs says it
        tell(Said(_time(trainer.plan, selection, measure)))
    if (taken := trainer.folder.taken(overwrite=asked.overwrite)) is not None:
        tell(Said(f"a training would be refused: {taken}"))
    tell(Said("nothing was trained or written"))


def _work(trainer: Trainer) -> list[str]:
    """What the run would do."""
    plan = trainer.plan
    model, steps, size = decided(plan.options.model), plan.steps_per_epoch, plan.batch_size
    work = multiply_adds(model, plan.preprocess.image_size, num_classes=len(plan.class_names), **plan.model_args)
    return [
        f"{model}: {work / 1e9:.3g} G multiply-adds for an image, about thrice that to learn it",
        f"{steps} steps of {size} images in an epoch, {steps * plan.epochs} in {counted(plan.epochs, 'epoch')}: "
        f"{steps * size * plan.epochs} images shown",
        f"learning rate: {sparkline([rate for _, rate in learning_rates(trainer)])} {_schedule(plan)}",
    ]


def _time(plan: Plan, selection: Selection, measure: Measure) -> str:
    """How long the run would take, as measured now."""
    speed = measured(plan, selection, measure)
    evaluated = f"{1000 * speed.evaluated:.0f} ms an image evaluated"
    return f"time: {time_words(speed.of(plan))}, by {of_a_step(speed, plan)} and {evaluated}"


def learning_rates(trainer: Trainer) -> list[tuple[float, float]]:
    """(epoch, learning rate) at up to 60 places of the schedule, the first and the last step among them."""
    plan, learner = trainer.plan, trainer.learner
    last = plan.epochs * plan.steps_per_epoch - 1
    places = sorted({round(i * last / (POINTS - 1)) for i in range(POINTS)})
    rates = []
    for step in places:
        learner.scheduler.step_update(step)
        rates.append((step / plan.steps_per_epoch, learner.lr))
    return rates


def sparkline(values: list[float]) -> str:
    """Numbers from 0 on as a row of bars, as high as each is of the largest.

    >>> sparkline([0.0, 1.0, 2.0, 4.0])
    '▁▃▅█'
    """
    top = max(values) or 1.0
    return "".join(BARS[round(value / top * (len(BARS) - 1))] for value in values)


def _schedule(plan: Plan) -> str:
    lr, warmup = decided(plan.options.lr), ""
    if plan.options.warmup_epochs:
        warmup = f"from {plan.options.warmup_lr:.2g} in {plan.options.warmup_epochs:g} epochs to "
    return f"{warmup}{lr:.2g}, then down to {min(decided(plan.options.min_lr), lr):.2g}"
