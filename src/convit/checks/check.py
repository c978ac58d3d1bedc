"""From the argument DATA to a report of what is wrong with its images. Nothing of them is changed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convit.checks import confidence
from convit.checks.faults import exact_groups, firsts, near_groups, odd_pictures, small_classes
from convit.checks.measuring import Measured, measured
from convit.checks.near import near_pairs
from convit.checks.pictures import Pictures
from convit.checks.report import Labels, Report
from convit.data.select import Checking, Selection, select
from convit.events import Listener, ignore


@dataclass(frozen=True, slots=True)
class Predicted:
    """What models say of images that they did not learn from."""

    images: NDArray[np.int64]
    """(M,) their numbers."""
    probabilities: NDArray[np.float64]
    """(M, classes) in the order of the data's classes."""
    source: str
    """Where it comes from, in words."""


Predict = Callable[[Pictures, NDArray[np.bool_]], Predicted]
"""From the images, and which of them decode, to predictions."""


def chosen(
    data: str,
    *,
    data_root: Path | None = None,
    folders: Mapping[str, Path] | None = None,
    full_scale: float | None = None,
) -> Selection:
    """The images of DATA, all of them, the splits in the order in which they are checked.

    Raises:
        InputError: no data there, or nothing that can be read as classes of images.
    """
    selection = select(data, Checking(data_root=data_root, folders=folders or {}, full_scale=full_scale))
    order = sorted(selection.splits, key=("train", "all", "val", "test").index)
    alone = ("one class alone: training needs two",) if len(selection.class_names) == 1 else ()
    splits = {split: selection.splits[split] for split in order}
    return replace(selection, splits=splits, notes=(*selection.notes, *alone))


def check(
    selection: Selection,
    *,
    run_split: Mapping[str, str] | None = None,
    predict: Predict | None = None,
    tell: Listener = ignore,
) -> Report:
    """Looks for faults. Every image is decoded once.

    Args:
        selection: the images, as :func:`chosen` gives them.
        run_split: name -> split, as a run split images that had no splits of their own.
        predict: where predictions come from; without it labels are not checked.
        tell: gets the progress.

    Raises:
        InputError: images of more than 8 bits of which it is not clear what is white.
    """
    pictures, found = measured(Pictures(selection.splits, run_split), selection.name, tell)
    exact = exact_groups(pictures, found)
    # One of each picture that is there several times, or its copies would be compared with all of its likenesses.
    shown = np.flatnonzero(found.decoded & (firsts(len(pictures), exact) == np.arange(len(pictures))))
    near = near_pairs(found.thumbs[shown], tell)
    near = replace(near, pairs=shown[near.pairs])
    return Report(
        name=selection.name,
        root=selection.root,
        pictures=pictures,
        unreadable=sorted(found.reasons.items()),
        exact=exact,
        near=near_groups(pictures, exact, near),
        near_pairs=[(a, b) for a, b in near.pairs.tolist()],
        small=small_classes(pictures, found),
        odd=odd_pictures(found),
        alike=near.alike,
        labels=None if predict is None else _labels(pictures, found, predict),
        notes=selection.notes,
    )


def _labels(pictures: Pictures, found: Measured, predict: Predict) -> Labels:
    predicted = predict(pictures, found.decoded)
    labels = pictures.targets[predicted.images]
    doubts = confidence.doubts(predicted.probabilities, labels)
    return Labels(
        doubts=[replace(doubt, image=int(predicted.images[doubt.image])) for doubt in doubts],
        source=predicted.source,
        checked=len(predicted.images),
        agreeing=int((predicted.probabilities.argmax(axis=1) == labels).sum()) if len(labels) else 0,
    )
