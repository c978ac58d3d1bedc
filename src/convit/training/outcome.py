"""What a training came to: how good the model is, beside what guessing gives, and what a person may do next.

:func:`outcome` gives values; :meth:`Outcome.findings` says them in words, for the terminal and for ``report.html``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convit.errors import counted
from convit.events import Finding
from convit.training.evaluation import Evaluation, best_record
from convit.training.plan import Plan

LATE, FEW = 5, 10
"""Whether a run still improved is judged by the last fifth of its epochs, and not of fewer than ten."""
CLEAR = 0.02
"""The validation loss still falls if it fell by more than this part of itself there."""
RISEN = 0.1
"""The validation loss has risen if the last epoch's is higher than the lowest by more than this, in nats: by less it
does where labels are smoothed and all is right."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Confused:
    """Two classes, and how many images of each were taken for the other."""

    first: str
    second: str
    first_as_second: int
    second_as_first: int
    first_images: int
    """All that there are of it, as of the second."""
    second_images: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Late:
    """The validation loss in the last part of a run."""

    epochs: int
    """How many that are."""
    fall: float
    """By which part of itself it fell there, along a straight line through it; below 0 it rose."""
    clear: bool
    """Whether it fell by more than 2%, and by more than it goes up and down from epoch to epoch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a training came to; accuracies are in percent."""

    split: str
    """What the best model was measured on: ``"test"``, or ``"val"`` where there are no test images."""
    images: int
    """How many those are."""
    top1: float
    interval: tuple[float, float]
    """The 95% interval of ``top1`` (:func:`convit.intervals.wilson_interval`)."""
    chance: float
    """What guessing gives: 100 / classes."""
    largest: str
    """The class that most of those images are of."""
    largest_share: float
    """What always answering with it gives."""
    learned: bool | None
    """Whether the model is clearly better than that; None where the images are too few to tell."""
    confused: tuple[Confused, ...]
    """The pairs of classes that are taken for each other, the most often first."""
    best_epoch: int
    epochs: int
    """Epochs that were trained."""
    asked_epochs: int
    """Epochs that were planned; patience may have ended the run before."""
    minutes: float | None
    """What ``--minutes`` was, if it was given."""
    late: Late | None
    """None with fewer than ten epochs."""
    lowest_loss_epoch: int
    """The epoch with the lowest validation loss."""
    lowest_loss: float
    """That loss, in nats."""
    last_loss: float
    """The validation loss of the last epoch, in nats."""
    seen_top1: float
    """Accuracy on images that it learned from, not augmented."""
    seen_images: int
    seen_interval: tuple[float, float]
    smallest: str
    """The class with the fewest images to learn from."""
    smallest_images: int
    learned_from: int
    """Images to learn from."""
    pretrained: bool

    @property
    def overfits(self) -> bool:
        """Whether it is clearly better on images that it learned from than on new ones."""
        return self.seen_interval[0] > self.interval[1] and self.seen_top1 - self.top1 > 5

    @property
    def still_improved(self) -> bool:
        """Whether the validation loss still fell at the end."""
        return self.late is not None and self.late.clear and self.epochs == self.asked_epochs

    def findings(self) -> tuple[Finding, ...]:
        """In words, each what was found and, where there is something to do, what."""
        said = (_accuracy, _guessing, _confused, _epochs, _fit, _photos)
        return tuple(finding for say in said if (finding := say(self)) is not None)


def outcome(
    plan: Plan, history: Sequence[dict[str, Any]], evaluation: Evaluation, split: str, seen: Evaluation
) -> Outcome:
    """What a run came to, of which at least one epoch is complete.

    Args:
        plan: what was done.
        history: a record of each epoch.
        evaluation: of the best model.
        split: what that was on.
        seen: evaluation of the same model on images that it learned from.
    """
    confusion, names = evaluation.confusion, evaluation.class_names
    counts = confusion.sum(axis=1)
    losses = [record["val_loss"] for record in history]
    lowest = int(np.argmin(losses))
    learned_from = plan.facts.counts["train"]
    few = int(np.argmin(learned_from))
    minutes = plan.given.get("minutes")
    return Outcome(
        split=split,
        images=evaluation.num_images,
        top1=evaluation.top1,
        interval=evaluation.interval,
        chance=100 / len(names),
        largest=names[int(counts.argmax())],
        largest_share=100 * int(counts.max()) / evaluation.num_images,
        learned=learned(confusion),
        confused=confused_pairs(evaluation),
        best_epoch=best_record(list(history))["epoch"],
        epochs=len(history),
        asked_epochs=plan.epochs,
        minutes=minutes if isinstance(minutes, int | float) else None,
        late=late(losses),
        lowest_loss_epoch=lowest + 1,
        lowest_loss=losses[lowest],
        last_loss=losses[-1],
        smallest=plan.class_names[few],
        smallest_images=int(learned_from[few]),
        learned_from=plan.images,
        pretrained=plan.starts_from_weights,
        seen_top1=seen.top1,
        seen_images=seen.num_images,
        seen_interval=seen.interval,
    )


def learned(confusion: NDArray[np.int64]) -> bool | None:
    """Whether a model is two standard errors better than always answering with the largest class; None of too few
    images, where none could be."""
    images = int(confusion.sum())
    share = int(confusion.sum(axis=1).max()) / images
    needed = share + 2 * math.sqrt(share * (1 - share) / images)
    return None if needed >= 1 else bool(np.trace(confusion) / images > needed)


def confused_pairs(evaluation: Evaluation) -> tuple[Confused, ...]:
    """The pairs of classes that are taken for each other at all, by the number of those images, the most first."""
    confusion, names = evaluation.confusion, evaluation.class_names
    counts = confusion.sum(axis=1)
    both = np.triu(confusion + confusion.T, 1)
    first, second = np.nonzero(both)
    order = np.argsort(-both[first, second], kind="stable")
    return tuple(
        Confused(
            first=names[i],
            second=names[j],
            first_as_second=int(confusion[i, j]),
            second_as_first=int(confusion[j, i]),
            first_images=int(counts[i]),
            second_images=int(counts[j]),
        )
        for i, j in zip(first[order].tolist(), second[order].tolist(), strict=True)
    )


def late(losses: Sequence[float]) -> Late | None:
    """How a validation loss went in the last fifth of the epochs, at least three; None of fewer than ten.

    >>> late([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.32, 0.30, 0.24])
    Late(epochs=3, fall=0.24..., clear=True)
    """
    if len(losses) < FEW:
        return None
    count = max(3, math.ceil(len(losses) / LATE))
    values, epochs = np.array(losses[-count:], dtype=np.float64), np.arange(count) - (count - 1) / 2
    spread = float((epochs**2).sum())
    slope, mean = float((epochs * values).sum()) / spread, float(values.mean())
    noise = math.sqrt(float(((values - mean - slope * epochs) ** 2).sum()) / (count - 2) / spread)
    start = mean - slope * (count - 1) / 2
    fall = -slope * (count - 1) / start if start > 0 else 0.0
    return Late(epochs=count, fall=fall, clear=fall > CLEAR and -slope > 2 * noise)


# -- in words ----------------------------------------------------------------------------------------------------------


def _name(name: str) -> str:
    """The name of a class as sentences have it, cut short."""
    return repr(name if len(name) <= 40 else f"{name[:39]}…")


def _accuracy(o: Outcome) -> Finding:
    low, high = o.interval
    kind = "test" if o.split == "test" else "validation"
    text = f"{o.top1:.1f}% of {counted(o.images, f'{kind} image')} right"
    expected = f"On new images like these expect {low:.0f} to {high:.0f}% (95% interval)"
    if o.split == "val":
        return Finding("accuracy", f"{text}. {expected}, rather a little less: they also chose the best epoch.")
    return Finding("accuracy", f"{text}; none of them was used before. {expected}.")


def _guessing(o: Outcome) -> Finding:
    same = f"{o.chance:.1f}" == f"{o.largest_share:.1f}"
    text = f"Guessing gives {o.chance:.1f}%"
    text += ", and so does always the same answer" if same else ""
    text += "" if same else f"; always answering {_name(o.largest)}, the largest class, {o.largest_share:.1f}%"
    if o.learned is None:
        return Finding("guessing", f"{text}.", f"{o.images} images are too few to tell whether anything was learned.")
    if o.learned:
        return Finding("guessing", f"{text}.")
    return Finding(
        "guessing",
        f"{text}: the model is not clearly better, so nothing to rely on was learned.",
        "Try more images, more --epochs, or a start from --pretrained weights.",
    )


def _confused(o: Outcome) -> Finding:
    if not o.confused:
        return Finding("confused", "No image was taken for one of another class.")
    most, wrong = o.confused[0], sum(pair.first_as_second + pair.second_as_first for pair in o.confused)
    advice = "" if o.learned is False else "Look at its mistakes: wrong labels are often among them."
    if most.first_as_second + most.second_as_first == 1 < len(o.confused):
        text = f"{counted(wrong, 'image is', 'images are')} wrong, and no two classes are confused twice."
        return Finding("confused", text, advice)
    first = f"{most.first_as_second} of {most.first_images} {_name(most.first)} were taken for {_name(most.second)}"
    second = f"{most.second_as_first} of {most.second_images} {_name(most.second)} for {_name(most.first)}"
    which = "" if len(o.confused) == 1 else f"Most often {_name(most.first)} and {_name(most.second)}: "
    return Finding("confused", f"{which}{first}, {second}.", advice)


def _epochs(o: Outcome) -> Finding:
    text = f"The best epoch is {o.best_epoch} of {o.epochs}"
    more = f"--minutes {2 * o.minutes:g}" if o.minutes is not None else f"--epochs {2 * o.epochs}"
    if o.epochs < o.asked_epochs:
        return Finding("epochs", f"{text}; it stopped early, {o.asked_epochs} were planned (--patience).")
    if o.late is None:
        return Finding("epochs", f"{text}: too few to tell whether it still improved.", f"Try {more}.")
    last = f"in the last {counted(o.late.epochs, 'epoch')}"
    if o.still_improved:
        return Finding("epochs", f"{text}; the validation loss still fell by {o.late.fall:.0%} {last}.", f"Try {more}.")
    return Finding("epochs", f"{text}; the validation loss no longer fell {last}: it had stopped improving.")


def _fit(o: Outcome) -> Finding:
    text = f"{o.seen_top1:.1f}% of {o.seen_images} images that it learned from are right, {o.top1:.1f}% of new ones"
    if o.last_loss - o.lowest_loss > RISEN:
        since = f"{o.lowest_loss:.2f} in epoch {o.lowest_loss_epoch} to {o.last_loss:.2f}"
        text += f"; the validation loss rose from {since}"
    if o.overfits:
        start = "" if o.pretrained else ", or a start from --pretrained weights"
        return Finding("overfitting", f"Yes: {text}. It knows its own by heart.", f"More images help most{start}.")
    if o.seen_top1 < 90 and o.learned is not False:
        advice = "It has not learned its own images yet: more epochs or a larger --model may help."
        return Finding("overfitting", f"No: {text}.", advice)
    return Finding("overfitting", f"No: {text}.")


def _photos(o: Outcome) -> Finding:
    text = f"It learned from {o.learned_from} images, {o.smallest_images} of the smallest class, {_name(o.smallest)}."
    advice = "convit forecast tells how much more would give, in about the time of this run."
    return Finding("images", text, "" if o.learned is False else advice)
