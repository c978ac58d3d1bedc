"""The misclassified images, the highest loss first."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from convit.data import ImageSet
from convit.files import write_csv
from convit.training.distributed import ALONE, World


@dataclass(frozen=True, kw_only=True, slots=True)
class Mistake:
    """A misclassified image."""

    index: int
    """Its place among the images."""
    name: str
    true: str
    """Its class."""
    predicted: str
    """The predicted class."""
    probability: float
    """Probability of the predicted class, 0 to 1."""
    loss: float
    """Cross-entropy in nats, of its true class."""


class Answers:
    """What a model says of each image, gathered from the batches of :func:`convit.training.evaluate`.

    >>> answers = Answers()
    >>> answers.add(torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 0]))
    >>> answers.table(2)[:, 2:].tolist()  # taken for class 0 and class 1, which is wrong
    [[0.0, 0.0], [1.0, 1.0]]
    """

    def __init__(self) -> None:
        self._rows: list[Tensor] = []

    def add(self, logits: Tensor, target: Tensor) -> None:
        """The next images, ``(n, classes)`` and ``(n,)``."""
        probability, predicted = logits.softmax(dim=-1).max(dim=-1)
        losses = F.cross_entropy(logits, target, reduction="none")
        self._rows.append(torch.stack((losses, probability, predicted, predicted != target), dim=1).double())

    def table(self, images: int, world: World = ALONE) -> NDArray[np.float64]:
        """(images, 4) by image: loss, probability, predicted class, and 1 if that is wrong.

        Of several processes each has the images rank, rank + size, ...; all of them get the whole.
        """
        whole = torch.zeros(images, 4, dtype=torch.float64)
        whole[world.rank :: world.size] = torch.cat(self._rows) if self._rows else whole[:0]
        table: NDArray[np.float64] = world.sum(whole).numpy()
        return table

    def mistakes(self, images: ImageSet, world: World = ALONE) -> list[Mistake]:
        """Every misclassified image, the highest loss first."""
        table, names = self.table(len(images), world), images.class_names
        wrong = np.flatnonzero(table[:, 3])
        return [
            Mistake(
                index=i,
                name=images.names[i],
                true=names[images.targets[i]],
                predicted=names[int(table[i, 2])],
                probability=float(table[i, 1]),
                loss=float(table[i, 0]),
            )
            for i in wrong[np.argsort(-table[wrong, 0], kind="stable")].tolist()
        ]


def write_mistakes(mistakes: list[Mistake], path: Path) -> None:
    """A line for each, as CSV: image, true class, predicted class, its probability, loss."""
    heading = ("image", "true class", "taken for", "probability", "loss")
    rows = [(m.name, m.true, m.predicted, f"{m.probability:.6f}", f"{m.loss:.6f}") for m in mistakes]
    write_csv(path, [heading, *rows])
