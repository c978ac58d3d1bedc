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

from convit.data import ImageSet, Preprocess, SampleDataset, normalised
from convit.data.copies import Copies, Fitted
from convit.data.transforms import pixels_of
from convit.intervals import rate_with_interval, wilson_interval
from convit.training.distributed import ALONE, World
from convit.training.workers import batches, end_workers, make_loader

AUTOCAST: dict[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""The type of the matrix products by ``--precision``; None leaves all of them as the weights are."""


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


def evaluate(
    model: nn.Module,
    images: ImageSet,
    preprocess: Preprocess,
    *,
    batch_size: int = 64,
    workers: int = 0,
    copies: Copies | None = None,
    precision: str = "fp32",
    temperature: float = 1.0,
    on_batch: Callable[[int], None] = lambda images: None,
    on_logits: Callable[[Tensor, Tensor], None] = lambda logits, target: None,
    world: World = ALONE,
) -> Evaluation:
    """Runs ``model`` over ``images``, each once, in order.

    Of several processes, process r takes the images r, r + size, ...; what they count is summed, so every image counts
    once and all of them get the same evaluation.

    Args:
        model: gives logits for ``images.class_names``, in that order.
        images: at least one; an image that does not decode raises, it is never left out.
        preprocess: how an image becomes the model's input.
        batch_size: images at once.
        workers: processes that load them.
        copies: of these images, made by :class:`convit.data.copies.Fitted` to this preprocessing; None to make them.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        temperature: what the logits are divided by for the loss (:class:`convit.calibration.Calibration`).
        on_batch: told the number of images after each batch; may raise to stop. Called equally often on all processes,
            with 0 where one has a batch less than another.
        on_logits: given the logits, ``(n, classes)`` in fp32, as the model gives them, and the targets, ``(n,)``, of
            each batch of this process.
        world: the processes that share the work.
    """
    device = next(model.parameters()).device
    if copies is None:
        copies = Copies(images.scaled(preprocess.full_scale), Fitted.to(preprocess))
    dataset = SampleDataset(copies, pixels_of, seed=0)
    model.eval()
    own = range(world.rank, len(images), world.size)
    workers = min(workers, math.ceil(len(own) / batch_size))  # more would be started for nothing
    loader = make_loader(dataset, workers, batch_size=batch_size, sampler=own)
    dtype = AUTOCAST[precision]
    total = Tally.empty(len(images.class_names))
    try:
        for batch, target in batches(loader):
            with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype is not None):
                logits = model(normalised(batch.to(device), preprocess)).float().cpu()
            total = total + tally(logits / temperature, target)
            on_logits(logits, target)
            on_batch(len(batch))
    finally:
        end_workers(loader)
    longest = range(0, len(images), world.size)
    for _ in range(len(loader), -(-len(longest) // batch_size)):
        on_batch(0)
    return total.over(world).evaluation(images.class_names)


@dataclass(frozen=True, slots=True)
class Tally:
    """What is counted of some images; sums of it are the tally of all of them."""

    confusion: Tensor
    """(classes, classes) int64; ``[i, j]``: images of class i that were taken for class j."""
    in_top5: Tensor
    """() int64: images whose class is among the five first."""
    loss: Tensor
    """() float64: the sum of the cross-entropies, in nats."""

    @classmethod
    def empty(cls, classes: int) -> "Tally":
        """That of no image."""
        zero = torch.zeros((), dtype=torch.int64)
        return cls(torch.zeros(classes, classes, dtype=torch.int64), zero, zero.double())

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.confusion + other.confusion, self.in_top5 + other.in_top5, self.loss + other.loss)

    def over(self, world: World) -> "Tally":
        """The sum over the processes."""
        return Tally(world.sum(self.confusion), world.sum(self.in_top5), world.sum(self.loss))

    def evaluation(self, class_names: tuple[str, ...]) -> Evaluation:
        """What it says of a model; of at least one image."""
        confusion = self.confusion.numpy()
        images, right = int(confusion.sum()), np.diag(confusion)
        taken, of_class = confusion.sum(axis=0), confusion.sum(axis=1)
        return Evaluation(
            class_names=class_names,
            loss=self.loss.item() / images,
            top1=100 * int(right.sum()) / images,
            top5=100 * self.in_top5.item() / images if len(class_names) > 5 else None,
            confusion=confusion,
            precision=right / np.maximum(taken, 1),
            recall=right / np.maximum(of_class, 1),
        )


def tally(logits: Tensor, target: Tensor) -> Tally:
    """Counts ``logits``, ``(N, classes)`` fp32, against ``target``, ``(N,)``."""
    classes = logits.shape[1]
    top = logits.topk(min(5, classes), dim=-1).indices
    cells = torch.bincount(target * classes + top[:, 0], minlength=classes**2)
    in_top5 = (top == target[:, None]).any(-1).sum()
    losses = F.cross_entropy(logits, target, reduction="none")
    return Tally(cells.reshape(classes, classes), in_top5, losses.sum(dtype=torch.float64))


def probabilities(
    model: nn.Module,
    images: ImageSet,
    preprocess: Preprocess,
    temperature: float = 1.0,
    on_batch: Callable[[int], None] = lambda images: None,
) -> NDArray[np.float64]:
    """``softmax(logits / temperature)`` of each image, ``(N, classes)``; arguments as of :func:`evaluate`."""
    rows: list[Tensor] = [torch.empty(0, len(images.class_names), dtype=torch.float64)]

    def on_logits(logits: Tensor, target: Tensor) -> None:
        rows.append((logits.double() / temperature).softmax(dim=-1))

    evaluate(model, images, preprocess, on_batch=on_batch, on_logits=on_logits)
    found: NDArray[np.float64] = torch.cat(rows).numpy()
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


def score(logits: Tensor, targets: NDArray[np.int64], class_names: tuple[str, ...]) -> Evaluation:
    """The evaluation of ``logits``, ``(N, classes)``, against ``targets``, ``(N,)``."""
    return tally(logits, torch.from_numpy(targets)).evaluation(class_names)
