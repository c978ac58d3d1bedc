"""The predictions of a classifier, computed by PyTorch or by an exported file. Imports nothing heavy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convit.errors import InputError, brief


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


def check_class_names(names: Sequence[Any], outputs: int) -> None:
    """Whether the names are texts, each of them once, and one for each output.

    Raises:
        InputError: they are not.
    """
    if others := [name for name in names if not isinstance(name, str)]:
        raise InputError(f"class_names: got {brief(others[0])}, expected texts")
    if len(names) != outputs or len(set(names)) != len(names) or not names:
        raise InputError(
            f"class_names: got {len(set(names))} different ones, expected {outputs or 'some'}, one per output"
        )
