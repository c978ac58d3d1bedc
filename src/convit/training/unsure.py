"""How often a model takes pictures for none of its classes, and how often its prediction sets have the true class."""

from typing import Any

import numpy as np
from torch import Tensor

from convit.answers import in_sets, thresholds
from convit.calibration import Calibration, probabilities_of, scores
from convit.intervals import rate_with_interval, wilson_interval

SHOWN = 20
"""The coverage of so many classes is printed, the lowest first; ``evaluation.json`` has all of them."""


class Unsure:
    """What is measured of them on labelled images, gathered from the batches of :func:`convit.training.evaluate`.

    Args:
        calibration: the model's.
        reject: the rate of false alarms that is asked for, or None.
        coverage: the coverage of prediction sets that is asked for, or None.

    Raises:
        InputError: as :func:`convit.answers.thresholds`.
    """

    def __init__(self, calibration: Calibration | None, reject: float | None, coverage: float | None) -> None:
        self.reject, self.coverage = reject, coverage
        self.thresholds = thresholds(calibration, reject, coverage)
        self.temperature = 1.0 if calibration is None else calibration.temperature
        self._rows: list[Any] = []

    def add(self, logits: Tensor, target: Tensor) -> None:
        """The next images: logits ``(n, classes)`` as the model gives them, true classes ``(n,)``."""
        if self.reject is None and self.coverage is None:
            return
        z, y = logits.numpy() / np.float32(self.temperature), target.numpy()
        p = probabilities_of(z)
        sets = in_sets(p, 2.0 if self.thresholds.coverage is None else self.thresholds.coverage)
        below = -np.inf if self.thresholds.reject is None else self.thresholds.reject
        columns = (y, p.argmax(axis=1) == y, scores(z) < below, sets[np.arange(len(y)), y], sets.sum(axis=1))
        self._rows.append(np.stack(columns, axis=1).astype(np.int64))

    def to_dict(self, class_names: tuple[str, ...]) -> dict[str, Any]:
        """What was measured, as JSON values; empty if nothing was asked for."""
        if not self._rows:
            return {}
        y, right, rejected, covered, size = np.concatenate(self._rows).T
        document: dict[str, Any] = {}
        if self.reject is not None:
            kept = rejected == 0
            document["none_of_these"] = {
                "asked": self.reject,
                "threshold": self.thresholds.reject,
                "rejected": int(rejected.sum()),
                "rate": float(rejected.mean()),
                "rate_interval": list(wilson_interval(int(rejected.sum()), len(y))),
                "images_kept": int(kept.sum()),
                "right_of_kept": int(right[kept].sum()),
            }
        if self.coverage is not None:
            document["sets"] = {
                "asked": self.coverage,
                "threshold": self.thresholds.coverage,
                "covered": int(covered.sum()),
                "coverage": float(covered.mean()),
                "coverage_interval": list(wilson_interval(int(covered.sum()), len(y))),
                "mean_size": float(size.mean()),
                "classes": [
                    {
                        "name": name,
                        "images": int((y == i).sum()),
                        "covered": int(covered[y == i].sum()),
                        "coverage_interval": list(wilson_interval(int(covered[y == i].sum()), int((y == i).sum()))),
                    }
                    for i, name in enumerate(class_names)
                ],
            }
        return document

    def lines(self, class_names: tuple[str, ...]) -> list[str]:
        """What is said of it."""
        document = self.to_dict(class_names)
        said = []
        if found := document.get("none_of_these"):
            images = found["rejected"] + found["images_kept"] or 1
            said.append(
                f"none of these: {rate_with_interval(found['rejected'], images)} of {images} images are taken for it, "
                f"asked: at most {found['asked']:.0%}; of the others {found['images_kept']} "
                f"{rate_with_interval(found['right_of_kept'], found['images_kept'])} are right"
            )
        if found := document.get("sets"):
            images = sum(each["images"] for each in found["classes"])
            covered = rate_with_interval(found["covered"], images)
            said.append(
                f"prediction sets: {covered} of {images} have the true class, asked: {found['asked']:.0%}; "
                f"{found['mean_size']:.2f} classes each on average"
            )
            there = [each for each in found["classes"] if each["images"]]
            there.sort(key=lambda each: each["covered"] / each["images"])
            for each in there[:SHOWN]:
                said.append(
                    f"  {each['name']}: {rate_with_interval(each['covered'], each['images'])}, {each['images']}"
                )
            if len(there) > SHOWN:
                said.append(f"  and {len(there) - SHOWN} more classes")
        return said
