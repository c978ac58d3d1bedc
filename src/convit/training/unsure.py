"""How often a model takes pictures for none of its classes, and how often its prediction sets have the true class."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from convit.answers import in_sets, thresholds
from convit.calibration import Calibration, probabilities_of, scores
from convit.intervals import rate_with_interval, wilson_interval

SHOWN = 20
"""The coverage of so many classes is printed, the lowest first; ``evaluation.json`` has all of them."""


def measured(
    logits: Tensor,
    targets: NDArray[np.int64],
    class_names: tuple[str, ...],
    calibration: Calibration | None,
    *,
    reject: float | None,
    coverage: float | None,
) -> dict[str, Any]:
    """What is measured of them on labelled images, as JSON values; empty if nothing is asked for.

    Args:
        logits: ``(N, classes)`` fp32, as the model gives them.
        targets: ``(N,)`` true classes.
        class_names: of the model.
        calibration: the model's.
        reject: the rate of false alarms that is asked for, or None.
        coverage: the coverage of prediction sets that is asked for, or None.

    Raises:
        InputError: as :func:`convit.answers.thresholds`.
    """
    wanted, y = thresholds(calibration, reject, coverage), targets
    z = logits.numpy() / np.float32(1.0 if calibration is None else calibration.temperature)
    p = probabilities_of(z)
    document: dict[str, Any] = {}
    if wanted.reject is not None:
        rejected = scores(z) < wanted.reject
        right_of_kept = p.argmax(axis=1)[~rejected] == y[~rejected]
        document["none_of_these"] = {
            "asked": reject,
            "threshold": wanted.reject,
            "rejected": int(rejected.sum()),
            "rate": float(rejected.mean()),
            "rate_interval": list(wilson_interval(int(rejected.sum()), len(y))),
            "images_kept": len(right_of_kept),
            "right_of_kept": int(right_of_kept.sum()),
        }
    if wanted.coverage is not None:
        sets = in_sets(p, wanted.coverage)
        covered, size = sets[np.arange(len(y)), y], sets.sum(axis=1)
        document["sets"] = {
            "asked": coverage,
            "threshold": wanted.coverage,
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


def lines(document: dict[str, Any]) -> list[str]:
    """What is said of what was :func:`measured`."""
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
            said.append(f"  {each['name']}: {rate_with_interval(each['covered'], each['images'])}, {each['images']}")
        if len(there) > SHOWN:
            said.append(f"  and {len(there) - SHOWN} more classes")
    return said
