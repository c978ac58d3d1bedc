"""The misclassified images, the highest loss first."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from convit.calibration import Calibration
from convit.data import ImageSet
from convit.files import write_csv
from convit.training.distributed import ALONE, World
from convit.training.reliability import Reliability, scores_of


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


COLUMNS = 8
"""Of :meth:`Answers.table`."""


class Answers:
    """What a model says of each image, gathered from the batches of :func:`convit.training.evaluate`.

    Args:
        calibration: the model's; its probabilities and losses are those of ``softmax(logits / temperature)``.

    >>> answers = Answers()
    >>> answers.add(torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 0]))
    >>> answers.table(2)[:, 2:4].tolist()  # taken for class 0 and class 1, which is wrong
    [[0.0, 0.0], [1.0, 1.0]]
    """

    def __init__(self, calibration: Calibration | None = None) -> None:
        self.calibration = calibration
        self._rows: list[Tensor] = []

    def add(self, logits: Tensor, target: Tensor) -> None:
        """The next images, ``(n, classes)`` and ``(n,)``."""
        temperature = 1.0 if self.calibration is None else self.calibration.temperature
        (loss, probability, brier), before = _scored(logits / temperature, target), _scored(logits, target)
        predicted = logits.argmax(dim=-1)
        columns = (loss, probability, predicted, predicted != target, brier, before[0], before[1], before[2])
        self._rows.append(torch.stack(columns, dim=1).double())

    def table(self, images: int, world: World = ALONE) -> NDArray[np.float64]:
        """(images, COLUMNS) by image: loss, probability, predicted class, 1 if that is wrong, Brier score; then loss,
        probability and Brier score at temperature 1.

        Of several processes each has the images rank, rank + size, ...; all of them get the whole.
        """
        whole = torch.zeros(images, COLUMNS, dtype=torch.float64)
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

    def reliability(self, images: int, world: World = ALONE, *, fitted_here: bool = False) -> Reliability:
        """How far the probabilities can be relied on.

        Args:
            images: how many there are.
            world: as in :meth:`table`.
            fitted_here: whether the temperature was fitted on images among these.
        """
        table = self.table(images, world)
        right = table[:, 3] == 0
        return Reliability(
            calibration=self.calibration,
            before=scores_of(table[:, 5], table[:, 7], table[:, 6], right),
            after=None if self.calibration is None else scores_of(table[:, 0], table[:, 4], table[:, 1], right),
            fitted_here=fitted_here and self.calibration is not None,
        )


def _scored(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, highest probability and Brier score of each image, ``(n,)``."""
    p = logits.softmax(dim=-1)
    of_target = p.gather(1, target[:, None])[:, 0]
    brier = p.square().sum(dim=-1) - 2 * of_target + 1
    return F.cross_entropy(logits, target, reduction="none"), p.amax(dim=-1), brier


def write_mistakes(mistakes: list[Mistake], path: Path) -> None:
    """A line for each, as CSV: image, true class, predicted class, its probability, loss."""
    heading = ("image", "true class", "taken for", "probability", "loss")
    rows = [(m.name, m.true, m.predicted, f"{m.probability:.6f}", f"{m.loss:.6f}") for m in mistakes]
    write_csv(path, [heading, *rows])
