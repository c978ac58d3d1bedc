"""Images to evaluate a model on, selected so that its training images are not taken by mistake."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from convit.data.image_sets import ImageSet, listing
from convit.data.scan import BadImage, drop, look, refuse_bad
from convit.data.selection import Selection
from convit.data.sources import Source
from convit.errors import InputError
from convit.events import Listener, ignore
from convit.files import composed


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """What is known of the images that a model was trained on."""

    class_names: tuple[str, ...] = ()
    """The model's classes, which the images must have; empty if any classes are allowed."""
    root: str | None = None
    """The argument DATA that opens its images; None if it is not known, and then ``split`` is not known either."""
    split: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Split -> the names of its images."""
    some_classes: bool = False
    """Whether it was trained on some of the classes of its data: images of the others are left out, not refused."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluating:
    """Images to evaluate a model on."""

    split: Literal["auto", "train", "val", "test", "all"] = "auto"
    """``auto`` is the test split if there is one, or else val; or else, of images that the model's run split itself,
    those that it was not trained on; or else all images."""
    known: Known | None = None
    data_root: Path | None = None
    """Where data sets are downloaded to; None for the usual place."""
    skip_bad: bool = False
    """Leave out files that cannot be decoded and missing files of a list; otherwise they are refused."""
    check: bool = True
    """Whether every image is decoded first to find those; without it such a file is found when it is read."""
    min_classes: int = 1
    tell: Listener = ignore
    """The listener that gets the progress of the check."""


def to_evaluate_on(source: Source, choice: Evaluating) -> Selection:
    """The images of a source to evaluate a model on. Errors are those of :func:`convit.data.select.select`."""
    known = choice.known or Known()
    split, images = _chosen(source, choice.split, known)
    notes = list(source.notes)
    if known.class_names:
        whole = len(images)
        images = _of_classes(source.name, images, known)
        if others := whole - len(images):
            notes.append(f"{others} images are of classes that the run left out by --classes: not evaluated")
    bad: list[BadImage] = []
    if choice.check:
        bad = look(images, "checking images", choice.tell)
        if not choice.skip_bad:
            refuse_bad(source.name, bad)
        images = drop(images, bad) if bad else images
    if (choice.split, split) == ("auto", "all") and choice.known is not None:
        if known.root is None:
            notes.append("it is not known which images the model learned from: they may be among these")
        if learned := _learned(known).intersection(map(composed, images.names)):
            notes.append(
                f"{len(learned)} of the {len(images)} files have names of images that the run learned from: if they "
                "are the same ones, take --split val"
            )
    return Selection(
        name=source.name,
        root=source.root,
        class_names=images.class_names,
        splits={split: images},
        source=source,
        available=len(images),
        left_out=tuple(bad),
        notes=tuple(notes),
    )


def _chosen(source: Source, split: str, known: Known) -> tuple[str, ImageSet]:
    """The images to evaluate on, and what they are called.

    A folder without official splits was split by the run that was trained on it. The accuracy on its training images
    would be too high, so they are only taken if the caller names them.

    Raises:
        InputError: there is no such split.
    """
    official = [name for name in ("test", "val") if name in source.splits]
    if split == "auto" and official:
        split = official[0]
    if split in official:
        return split, source.splits[split]
    whole, train = source.splits.get("all"), source.splits.get("train")
    everything = train if whole is None else whole
    own = known.root is not None and known.root == source.root
    moved = everything is not None and not _learned(known).isdisjoint(map(composed, everything.names))
    divided = ("auto", "train", "val") if own else ("train", "val") if moved else ()
    own_split = "val" if split == "auto" else split
    if everything is not None and split in divided and own_split in known.split:
        images = everything.called(set(known.split[own_split]))
        if not len(images):
            raise InputError(f"{source.name}: none of the run's {own_split} images is there any more, expected some")
        return own_split, images
    if whole is not None and split in ("auto", "all"):
        return "all", whole
    if train is not None and split in ("auto", "train"):
        return "train", train
    there = ["auto", *(source.splits if whole is None else ("all", *(("train", "val") if own or moved else ())))]
    raise InputError(f"{source.name}: got split {split}, expected one of {', '.join(there)}")


def _of_classes(name: str, images: ImageSet, known: Known) -> ImageSet:
    """The images as the model's classes have them.

    Raises:
        InputError: an image of a class that the model does not know, unless it learned some of the classes.
    """
    if known.some_classes:
        learned = np.isin(list(map(composed, images.class_names)), list(map(composed, known.class_names)))
        images = images.subset(np.flatnonzero(learned[images.targets]))
    if not len(images):
        raise InputError(f"{name}: no image of the run's classes {listing(known.class_names)}; expected some")
    return images.with_classes(known.class_names)


def _learned(known: Known) -> set[str]:
    """The names of the images that a model learned from, in one Unicode form."""
    return set(map(composed, known.split.get("train", ())))
