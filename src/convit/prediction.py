"""The predictions of a classifier, computed by PyTorch or by an exported file. Imports nothing heavy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, repr=False)
class Prediction:
    """One class and its probability.

    >>> Prediction("cat", 0.9734)
    Prediction('cat', 97.3%)
    """

    class_name: str
    probability: float
    """From 0 to 1."""

    def __repr__(self) -> str:
        return f"Prediction({self.class_name!r}, {self.probability:.1%})"

    def __str__(self) -> str:
        return f"{self.class_name} {self.probability:.1%}"


def ranked(probabilities: NDArray[Any], class_names: Sequence[str], top_k: int) -> list[list[Prediction]]:
    """For each row of ``(images, classes)`` the most probable classes, best first; all of them if there are fewer.

    >>> ranked(np.array([[0.25, 0.75]]), ["cat", "dog"], 1)
    [[Prediction('dog', 75.0%)]]
    """
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k].tolist()
    return [
        [Prediction(class_names[i], float(row[i])) for i in order]
        for row, order in zip(probabilities, best, strict=True)
    ]
