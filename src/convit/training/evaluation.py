"""Metrics of a model on images that it was not trained on."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from convit.choices import Precision
from convit.classifier import Classifier
from convit.data import ImageSet, Preprocess, SampleDataset, normalised
from convit.data.copies import Copies, Fitted
from convit.data.transforms import pixels_of
from convit.device import autocast
from convit.errors import InputError
from convit.events import Advanced, Listener
from convit.intervals import rate_with_interval, wilson_interval
from convit.training.distributed import ALONE, World
from convit.training.workers import batches, end_workers, make_loader


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Metrics of a model on N images; accuracies are in percent."""

    class_names: tuple[str, ...]
    loss: float
    """Mean cross-entropy, in nats, at the temperature that it was evaluated with."""
    top1: float
    top5: float | None
    """None with five classes or fewer, where it would always be 100."""
    confusion: NDArray[np.int64]
    """``[i, j]``: images of class i with class j predicted."""
    precision: NDArray[np.float64]
    """By class, 0 to 1: the fraction of the images predicted as it that are of it; 0 if there are none."""
    recall: NDArray[np.float64]
    """By class, 0 to 1: the fraction of its images that are predicted as it; 0 if it has no images."""

    @property
    def accuracy(self) -> str:
        """In words, each accuracy with its 95% interval, such as ``top-1 50.00% (95% interval 9.45 to 90.55)``."""
        top5 = "" if self.top5 is None else f", top-5 {rate_with_interval(self._in_top5, self.num_images)}"
        return f"top-1 {rate_with_interval(self.right, self.num_images)}{top5}"

    @property
    def right(self) -> int:
        """Images whose class is the first."""
        return int(np.trace(self.confusion))

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of ``top1``, in percent (:func:`convit.intervals.wilson_interval`)."""
        return _percent(self.right, self.num_images)

    @property
    def _in_top5(self) -> int:
        return round((self.top5 or 0) * self.num_images / 100)

    @property
    def num_images(self) -> int:
        """N."""
        return int(self.confusion.sum())

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        counts, n = self.confusion.sum(axis=1), self.num_images
        top5 = {} if self.top5 is None else {"top5": self.top5, "top5_interval": [*_percent(self._in_top5, n)]}
        return {
            "images": n,
            "loss": self.loss,
            "top1": self.top1,
            "top1_interval": [*self.interval],
            **top5,
            "classes": [
                {
                    "name": name,
                    "images": int(counts[i]),
                    "precision": float(self.precision[i]),
                    "recall": float(self.recall[i]),
                    "recall_interval": list(wilson_interval(int(self.confusion[i, i]), int(counts[i]))),
                }
                for i, name in enumerate(self.class_names)
            ],
            "confusion": self.confusion.tolist(),
        }


def _percent(right: int, total: int) -> tuple[float, float]:
    """The 95% interval of an accuracy, in percent."""
    low, high = wilson_interval(right, total)
    return 100 * low, 100 * high


def logits_of(
    model: nn.Module,
    images: ImageSet,
    preprocess: Preprocess,
    *,
    batch_size: int = 64,
    workers: int = 0,
    copies: Copies | None = None,
    precision: Precision = "fp32",
    on_batch: Callable[[int], None] = lambda images: None,
    world: World = ALONE,
) -> Tensor:
    """Runs ``model`` over ``images``, each once, in order.

    Of several processes, process r takes the images r, r + size, ...; all of them get the logits of all images.

    Args:
        model: gives logits for ``images.class_names``, in that order.
        images: at least one; an image that does not decode raises, it is never left out.
        preprocess: how an image becomes the model's input.
        batch_size: images at once.
        workers: processes that load them.
        copies: of these images, made by :class:`convit.data.copies.Fitted` to this preprocessing; None to make them.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        on_batch: told the number of images after each batch; may raise to stop. Called equally often on all processes,
            with 0 where one has a batch less than another.
        world: the processes that share the work.

    Returns:
        ``(N, classes)`` fp32, on the CPU.
    """
    device = next(model.parameters()).device
    if copies is None:
        copies = Copies(images.scaled(preprocess.full_scale), Fitted.to(preprocess))
    dataset = SampleDataset(copies, pixels_of, seed=0)
    model.eval()
    own = range(world.rank, len(images), world.size)
    workers = min(workers, math.ceil(len(own) / batch_size))  # more would be started for nothing
    loader = make_loader(dataset, workers, batch_size=batch_size, sampler=own)
    found = torch.zeros(len(images), len(images.class_names))
    parts = iter(found[world.rank :: world.size].split(batch_size))
    try:
        for batch, _ in batches(loader):
            with torch.inference_mode(), autocast(device, precision):
                logits = model(normalised(batch.to(device), preprocess)).float().cpu()
            part = next(parts)
            if logits.shape != part.shape:
                raise InputError(f"model: gives {logits.shape[1:]} for an image, expected {part.shape[1]} logits")
            part.copy_(logits)
            on_batch(len(batch))
    finally:
        end_workers(loader)
    longest = range(0, len(images), world.size)
    for _ in range(len(loader), -(-len(longest) // batch_size)):
        on_batch(0)
    return world.sum(found)


def evaluate(
    model: nn.Module, images: ImageSet, preprocess: Preprocess, *, temperature: float = 1.0, **how: Any
) -> Evaluation:
    """Runs ``model`` over ``images``, each once; of several processes all get the same evaluation.

    Args:
        model, images, preprocess, how: as of :func:`logits_of`.
        temperature: what the logits are divided by for the loss (:class:`convit.calibration.Calibration`).
    """
    return score(logits_of(model, images, preprocess, **how) / temperature, images.targets, images.class_names)


def score(logits: Tensor, targets: NDArray[np.int64], class_names: tuple[str, ...]) -> Evaluation:
    """The evaluation of ``logits``, ``(N, classes)`` fp32, against ``targets``, ``(N,)``; of at least one image."""
    target, classes = torch.tensor(targets), len(class_names)
    top = logits.topk(min(5, classes), dim=-1).indices
    counts = torch.bincount(target * classes + top[:, 0], minlength=classes**2)
    confusion: NDArray[np.int64] = counts.reshape(classes, classes).numpy()
    in_top5 = int((top == target[:, None]).any(-1).sum())
    loss = F.cross_entropy(logits, target, reduction="none").sum(dtype=torch.float64).item()
    images, right = len(target), np.diag(confusion)
    return Evaluation(
        class_names=class_names,
        loss=loss / images,
        top1=100 * int(right.sum()) / images,
        top5=100 * in_top5 / images if classes > 5 else None,
        confusion=confusion,
        precision=right / np.maximum(confusion.sum(axis=0), 1),
        recall=right / np.maximum(confusion.sum(axis=1), 1),
    )


def probabilities(classifier: Classifier, images: ImageSet, tell: Listener) -> NDArray[np.float64]:
    """``softmax(logits / temperature)`` of each image, ``(N, classes)``; tells how it goes on."""
    logits = logits_of(classifier.model, images, classifier.preprocess, on_batch=lambda count: tell(Advanced(count)))
    found: NDArray[np.float64] = (logits.double() / classifier.temperature).softmax(dim=-1).numpy()
    return found


def evenly(images: ImageSet, most: int) -> ImageSet:
    """At most so many images, evenly spread over the set."""
    return images if len(images) <= most else images.subset(np.linspace(0, len(images) - 1, most).astype(int))


def best_record(history: list[dict[str, Any]]) -> dict[str, Any]:
    """The epoch with the highest top-1 on the validation images; among equals the one with the lowest loss."""
    return max(history, key=lambda record: (record["val_top1"], -record["val_loss"]))


def epochs_since_best(history: list[dict[str, Any]]) -> int:
    """How many epochs came after the best one.

    >>> epochs_since_best([{"val_top1": 50.0, "val_loss": 1.0}, {"val_top1": 50.0, "val_loss": 1.1}])
    1
    """
    return len(history) - 1 - history.index(best_record(history)) if history else 0
