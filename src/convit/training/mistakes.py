"""What a model says of each image: the misclassified ones, and how far its probabilities can be relied on."""

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


def table(logits: Tensor, targets: NDArray[np.int64], calibration: Calibration | None = None) -> NDArray[np.float64]:
    """What a model says of N images, ``(N, 8)``.

    Loss, probability, predicted class, 1 if that is wrong, Brier score, of ``softmax(logits / temperature)``; then
    loss, probability and Brier score at temperature 1.

    Args:
        logits: ``(N, classes)`` fp32.
        targets: ``(N,)``.
        calibration: the model's.

    >>> table(torch.tensor([[2.0, 0.0], [0.0, 2.0]]), np.array([0, 0]))[:, 2:4].tolist()  # class 1 is wrong
    [[0.0, 0.0], [1.0, 1.0]]
    """
    target = torch.tensor(targets)
    temperature = 1.0 if calibration is None else calibration.temperature
    (loss, probability, brier), before = _scored(logits / temperature, target), _scored(logits, target)
    predicted = logits.argmax(dim=-1)
    columns = (loss, probability, predicted, predicted != target, brier, *before)
    found: NDArray[np.float64] = torch.stack([column.double() for column in columns], dim=1).numpy()
    return found


def mistakes(table: NDArray[np.float64], images: ImageSet) -> list[Mistake]:
    """Every misclassified image of a :func:`table`, the highest loss first."""
    names, wrong = images.class_names, np.flatnonzero(table[:, 3])
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


def reliability(
    table: NDArray[np.float64], calibration: Calibration | None, *, fitted_here: bool = False
) -> Reliability:
    """How far the probabilities of a :func:`table` can be relied on.

    Args:
        table: made with this calibration.
        calibration: the model's.
        fitted_here: whether the temperature was fitted on images among these.
    """
    right = table[:, 3] == 0
    return Reliability(
        calibration=calibration,
        before=scores_of(table[:, 5], table[:, 7], table[:, 6], right),
        after=None if calibration is None else scores_of(table[:, 0], table[:, 4], table[:, 1], right),
        fitted_here=fitted_here and calibration is not None,
    )


def _scored(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, highest probability and Brier score of each image, ``(N,)``."""
    p = logits.softmax(dim=-1)
    of_target = p.gather(1, target[:, None])[:, 0]
    brier = p.square().sum(dim=-1) - 2 * of_target + 1
    return F.cross_entropy(logits, target, reduction="none"), p.amax(dim=-1), brier


def write_mistakes(mistakes: list[Mistake], path: Path) -> None:
    """A line for each, as CSV: image, true class, predicted class, its probability, loss."""
    heading = ("image", "true class", "taken for", "probability", "loss")
    rows = [(m.name, m.true, m.predicted, f"{m.probability:.6f}", f"{m.loss:.6f}") for m in mistakes]
    write_csv(path, [heading, *rows])
