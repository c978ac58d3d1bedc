"""Looks at a run before it is one: what would be done, and how much it would take. Nothing of it is kept."""

import os
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from convit.data import BadImage, DataSource
from convit.errors import InputError
from convit.models import create_model
from convit.train import plots, watch
from convit.train.config import TrainConfig
from convit.train.engine import Trainer
from convit.train.memory import activation_bytes, held_bytes, in_words
from convit.train.observer import Observer, StopRequest
from convit.train.plan import Plan
from convit.train.run import introduction, planned
from convit.train.run_folder import RunFolder

POINTS = 60
"""The learning rate is shown at so many places of the schedule."""
BARS = "▁▂▃▄▅▆▇█"


def begin_trial(config: TrainConfig, observer: Observer) -> tuple[Trainer, DataSource, list[BadImage]]:
    """A trainer that stands at the beginning of the run, its images, and those that are left out. Nothing is written.

    Raises:
        InputError: data or options that do not work, several processes, or a run to resume.
    """
    check_trial(config)
    plan, source, bad = planned(config, observer)
    return Trainer(plan, RunFolder(plan.out), Observer(), StopRequest()), source, bad


def check_trial(config: TrainConfig) -> None:
    """Whether a trial can be made of it.

    Raises:
        InputError: a run to resume, or several processes.
        SystemExit: of several processes this is not the one that says so.
    """
    if (size := os.environ.get("WORLD_SIZE", "1")) != "1":
        if os.environ.get("RANK", "0") != "0":
            time.sleep(watch.GRACE)
            raise SystemExit(2)
        raise InputError(f"WORLD_SIZE: got {size} processes for a trial, expected one, without a launcher")
    if config.run.resume:
        raise InputError("resume: got it for a trial, which begins from scratch; expected a trial without --resume")


def dry_run(config: TrainConfig, observer: Observer, plot: Path | None = None) -> None:
    """Says what :func:`convit.train.train` would do with these options, and what it would refuse.

    Data, model, operations, steps, memory and learning rate. Weights are made and four images of noise run through the
    model; no image is learned from.

    Args:
        config: the options.
        observer: is told, line by line.
        plot: where a picture of the learning rate goes; without it nothing is written.

    Raises:
        InputError: what a run would raise before its first step.
    """
    check_trial(config)
    if config.run.out is not None:
        RunFolder(config.run.out).check_free(resume=False, overwrite=config.run.overwrite)
    trainer, source, bad = begin_trial(config, observer)
    plan = trainer.plan
    RunFolder(plan.out).check_free(resume=False, overwrite=config.run.overwrite)
    for line in introduction(trainer, source, bad):
        observer.message(line)
    steps = plan.steps_per_epoch
    flops = _flops(plan)
    observer.message(
        f"{plan.model_name}: {flops / 1e9:.3g} G multiply-adds for an image, about thrice that to learn it"
    )
    observer.message(
        f"{steps} steps of {plan.batch_size} images in an epoch, {steps * plan.epochs} in {plan.epochs} epochs: "
        f"{steps * plan.batch_size * plan.epochs} images shown"
    )
    held, active = held_bytes(trainer.learner), activation_bytes(trainer.learner, plan.batch_size)
    observer.message(
        f"memory: {in_words(held)} of weights, gradients and moments, about {in_words(active)} of activations; "
        f"{in_words(held + active)}, besides what the libraries take"
    )
    rates = learning_rates(trainer)
    observer.message(f"learning rate: {sparkline([rate for _, rate in rates])} {_schedule(plan)}")
    if plot is not None:
        plots.schedule(rates, plot, title=f"{plan.model_name}, {plan.batch_size} images a step")
        observer.message(f"written: {plot}")
    observer.message("nothing was trained" + (", nothing else was written" if plot else " or written"))


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
    warmup = (
        f"from {plan.warmup_lr:.2g} in {plan.values.warmup_epochs:g} epochs to " if plan.values.warmup_epochs else ""
    )
    return f"{warmup}{plan.lr:.2g}, then down to {min(plan.values.min_lr, plan.lr):.2g}"


def _flops(plan: Plan) -> int:
    """Multiply-adds of a forward pass for one image; nothing is allocated or computed for it."""
    model = create_model(plan.model_name, device="meta", num_classes=len(plan.class_names), **plan.model_args).eval()
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, *plan.preprocess.image_size, device="meta"))
    return counter.get_total_flops() // 2
