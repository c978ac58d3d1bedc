"""How long a run takes, from what its steps take: measured before it, or foretold from its first steps."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from convit.device import autocast
from convit.training.learner import Learner
from convit.training.plan import Plan
from convit.training.state import Progress

END = 3.0
"""Seconds for the plots at the end of a run."""
ENOUGH, STEPS = 4.0, 4
"""Seconds, and steps, from which a run's end is foretold at the least; or those of its first epoch, if they are
fewer."""
LEARNT, EVALUATED = 3.0, 1.2
"""An image learned from takes thrice a forward pass, besides its loading and the optimiser; one evaluated a little more
than one."""
RECORDED = 64
"""After each epoch the attention of so many validation images is recorded, which takes about twice an evaluation."""
SAVED = 0.2
"""Seconds for the saving after an epoch, where it was not measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """What work takes on this machine, in seconds."""

    first_step: float
    """A training step with images of ``first_size``, with their loading."""
    step: float
    """The same with images of the whole size."""
    evaluated: float
    """An image evaluated."""
    epoch_end: float
    """What an epoch ends with besides: what is recorded of it, and the saving."""

    def of(self, plan: Plan, *, epoch: int = 0, step: int = 0) -> float:
        """Seconds of a run from a step of an epoch on, both counted from 0; its images are loaded."""
        first = max(0, (plan.options.first_epochs or 0) - epoch)
        steps = first * self.first_step + (plan.epochs - epoch - first) * self.step
        done = step * (self.first_step if first else self.step)
        counts = {split: sum(images) for split, images in plan.facts.counts.items()}
        epochs = plan.epochs - epoch
        shown = epochs * counts["val"] + counts.get("test", counts["val"]) + plan.seen_images
        return plan.steps_per_epoch * steps - done + shown * self.evaluated + epochs * self.epoch_end + END


class Foretelling:
    """Foretells, once, how long a run will take, from the first steps that this process makes.

    Nothing is done for it but to read the clock, and to time two forward passes of a few images, so it changes nothing
    of the run. The first step is not counted: it prepares much. With images of another size, what the pixels take of a
    step is in proportion to them; loading and optimiser are not.

    Args:
        plan: of the run.
        forward: gives the seconds that an image of the whole size takes in a forward pass; called once.
        processes: that share a batch.
    """

    def __init__(self, plan: Plan, forward: Callable[[], float], processes: int = 1) -> None:
        self.plan, self.forward = plan, forward
        self.images = plan.batch_size / processes
        self.told = False
        self._from: tuple[int, int, float] | None = None

    def after_step(self, progress: Progress) -> str | None:
        """In words how long it will take from here to the end; None before enough steps are made, and ever after.

        Args:
            progress: where the run stands, with the step that was just made.
        """
        if self.told:
            return None
        if self._from is None:
            self._from = (progress.epoch, progress.step, progress.seconds)
            return None
        epoch, step, seconds = self._from if self._from[0] == progress.epoch else (progress.epoch, 0, 0.0)
        steps, taken = progress.step - step, progress.seconds - seconds
        if steps == 0 or ((taken < ENOUGH or steps < STEPS) and progress.step < self.plan.steps_per_epoch):
            return None
        self.told = True
        left = self._speed(taken / steps, epoch).of(self.plan, epoch=progress.epoch, step=progress.step)
        return f"{time_words(left)} from here to the end, foretold from {steps} steps of {1000 * taken / steps:.0f} ms"

    def _speed(self, step: float, epoch: int) -> Speed:
        """From the seconds of a step in an epoch, those of all other work."""
        plan, image = self.plan, self.forward()
        whole, small = (height * width for height, width in (plan.preprocess.image_size, plan.first_size))
        more = LEARNT * image * self.images * (1 - small / whole)
        in_first = epoch < (plan.options.first_epochs or 0)
        recorded = min(RECORDED, sum(plan.facts.counts["val"]))
        return Speed(
            first_step=step if in_first else max(step - more, step * small / whole),
            step=step + more if in_first else step,
            evaluated=EVALUATED * image,
            epoch_end=2 * image * recorded + SAVED,
        )


def forward_seconds(learner: Learner) -> float:
    """Seconds of an image in a forward pass of at most 16, without gradients; it changes nothing of the model."""
    images = torch.zeros(min(16, learner.plan.batch_size), 3, *learner.plan.preprocess.image_size)
    images, seconds = images.to(learner.device), 0.0
    learner.model.eval()  # every step sets it to train
    for _ in range(2):  # the first prepares much
        began = time.perf_counter()
        with torch.inference_mode(), autocast(learner.device, learner.plan.options.precision):
            learner.model(images).sum().item()
        seconds = time.perf_counter() - began
    return seconds / len(images)


def time_words(seconds: float) -> str:
    """A time that is not known exactly, for people.

    >>> time_words(7.6), time_words(200), time_words(5000), time_words(10000)
    ('about 8 seconds', 'about 3 minutes', 'about 83 minutes', 'about 2.8 hours')
    """
    if seconds < 90:
        return f"about {max(1, seconds):.0f} second{'s' * (round(seconds) > 1)}"
    return f"about {seconds / 60:.0f} minutes" if seconds < 5400 else f"about {seconds / 3600:.1f} hours"
