"""How good a model is on images that it did not learn from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torch import nn

from convit.data import ImageSet, Preprocess, SampleDataset, evaluation_transform
from convit.train.workers import batches, end_workers, make_loader

AUTOCAST: dict[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""The type of the matrix products by ``--precision``; None leaves all of them as the weights are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """What a model made of N images; accuracies are in percent."""

    class_names: tuple[str, ...]
    loss: float
    """Mean cross-entropy, in nats."""
    top1: float
    top5: float
    """Equal to 100 with five classes or fewer."""
    confusion: NDArray[np.int64]
    """``[i, j]``: images of class i that were taken for class j."""
    precision: NDArray[np.float64]
    """By class, 0 to 1: how many of the images taken for it are of it; 0 if none was."""
    recall: NDArray[np.float64]
    """By class, 0 to 1: how many of its images were found; 0 if it has none."""

    @property
    def num_images(self) -> int:
        """N."""
        return int(self.confusion.sum())

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        counts = self.confusion.sum(axis=1)
        return {
            "images": self.num_images,
            "loss": self.loss,
            "top1": self.top1,
            "top5": self.top5,
            "classes": [
                {
                    "name": name,
                    "images": int(counts[i]),
                    "precision": float(self.precision[i]),
                    "recall": float(self.recall[i]),
                }
                for i, name in enumerate(self.class_names)
            ],
            "confusion": self.confusion.tolist(),
        }


def evaluate(
    model: nn.Module,
    images: ImageSet,
    preprocess: Preprocess,
    *,
    batch_size: int = 64,
    workers: int = 0,
    cache: bool = False,
    precision: str = "fp32",
    on_batch: Callable[[int], None] = lambda images: None,
) -> Evaluation:
    """Runs ``model`` over ``images``, each once, in order.

    Args:
        model: gives logits for ``images.class_names``, in that order.
        images: at least one; an image that does not decode raises, it is never left out.
        preprocess: how an image becomes the model's input.
        batch_size: images at once.
        workers: processes that load them.
        cache: decode all of them first.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        on_batch: told the number of images after each batch; may raise to stop.
    """
    device = next(model.parameters()).device
    dataset = SampleDataset(images, evaluation_transform(preprocess), seed=0, cache=cache)
    model.eval()
    loader = make_loader(dataset, workers, batch_size=batch_size)
    dtype = AUTOCAST[precision]
    logits = []
    with torch.inference_mode():
        try:
            for batch, _ in batches(loader):
                with torch.autocast(device.type, dtype, enabled=dtype is not None):
                    logits.append(model(batch.to(device)).float().cpu())
                on_batch(len(batch))
        finally:
            end_workers(loader)
    return score(torch.cat(logits), images.targets, images.class_names)


def best_record(history: list[dict[str, Any]]) -> dict[str, Any]:
    """The epoch with the highest top-1 on the validation images; among equals the one with the lowest loss."""
    return max(history, key=lambda record: (record["val_top1"], -record["val_loss"]))


def epochs_since_best(history: list[dict[str, Any]]) -> int:
    """How many epochs came after the best one.

    >>> epochs_since_best([{"val_top1": 50.0, "val_loss": 1.0}, {"val_top1": 50.0, "val_loss": 1.1}])
    1
    """
    return len(history) - 1 - history.index(best_record(history)) if history else 0


def score(logits: torch.Tensor, targets: NDArray[np.int64], class_names: tuple[str, ...]) -> Evaluation:
    """The evaluation of ``logits``, ``(N, classes)``, against ``targets``, ``(N,)``."""
    target = torch.from_numpy(targets)
    top = logits.topk(min(5, len(class_names)), dim=-1).indices
    predicted = top[:, 0].numpy()
    labels = np.arange(len(class_names))
    precision, recall, _, _ = precision_recall_fscore_support(targets, predicted, labels=labels, zero_division=0)
    return Evaluation(
        class_names=class_names,
        loss=F.cross_entropy(logits, target).item(),
        top1=100 * float((predicted == targets).mean()),
        top5=100 * (top == target[:, None]).any(-1).float().mean().item(),
        confusion=confusion_matrix(targets, predicted, labels=labels),
        precision=precision,
        recall=recall,
    )
