"""Two models on the same images: is one of them better?"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from convit.data import ImageSet
from convit.files import write_csv, write_json
from convit.intervals import mcnemar, paired_difference
from convit.training.evaluation import Evaluation

SIGNIFICANT = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """How many of N images two models have right."""

    both: int
    first: int
    """The first model alone."""
    second: int
    """The second model alone."""
    neither: int

    @classmethod
    def of(cls, first: ArrayLike, second: ArrayLike) -> Self:
        """Of two models that are right, ``(N,)``, on images in the same order."""
        a, b = np.asarray(first, bool), np.asarray(second, bool)
        counts = (a & b, a & ~b, ~a & b, ~a & ~b)
        return cls(**{name: int(rows.sum()) for name, rows in zip(cls.__dataclass_fields__, counts, strict=True)})

    @property
    def p(self) -> float:
        """Of McNemar's exact test: how often two models that are as good would differ by as much (:func:`mcnemar`)."""
        return mcnemar(self.first, self.second)

    @property
    def difference(self) -> tuple[float, float, float]:
        """Accuracy of the first less that of the second, in points, and its 95% interval."""
        counts = (self.both, self.first, self.second, self.neither)
        low, high = paired_difference(*counts)
        return 100 * (self.first - self.second) / sum(counts), 100 * low, 100 * high

    def line(self) -> str:
        """What is said of it."""
        points, low, high = self.difference
        verdict = "they differ" if self.p < SIGNIFICANT else "no difference can be told on these images"
        return (
            f"difference {points:+.2f} points (95% interval {low:+.2f} to {high:+.2f}); right: both {self.both}, the "
            f"first alone {self.first}, the second alone {self.second}, neither {self.neither}; McNemar's exact test: "
            f"p = {self.p:.2g}: {verdict}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        points, low, high = self.difference
        return {
            "both_right": self.both,
            "first_alone_right": self.first,
            "second_alone_right": self.second,
            "neither_right": self.neither,
            "difference": points,
            "difference_interval": [low, high],
            "mcnemar_p": self.p,
        }


def write_comparison(
    folder: Path, found: Comparison, results: tuple[Evaluation, Evaluation], tables: Any, images: ImageSet
) -> list[str]:
    """Writes ``differences.csv``, the images that one model alone has right, and ``comparison.json``, the last.

    Args:
        folder: where to; it is there.
        found: the comparison.
        results: of the first and the second model.
        tables: of both (:func:`convit.training.mistakes.table`).
        images: that they were evaluated on.

    Returns:
        The names of the files.
    """
    names = images.class_names
    rows: list[tuple[object, ...]] = [("image", "true class", "of the first", "of the second", "right")]
    for i in np.flatnonzero(tables[0][:, 3] != tables[1][:, 3]).tolist():
        said = [results[k].class_names[int(tables[k][i, 2])] for k in (0, 1)]
        which = "second" if tables[0][i, 3] else "first"
        rows.append((images.names[i], names[images.targets[i]], *said, which))
    write_csv(folder / "differences.csv", rows)
    write_json(folder / "comparison.json", found.to_dict() | {"runs": [result.to_dict() for result in results]})
    return ["comparison.json", "differences.csv"]
