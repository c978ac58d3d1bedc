"""Images to evaluate a model on, selected so that its training images are not taken by mistake."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from convit.data.duplicates import learned_note
from convit.data.full_scale import UNKNOWN_SCALE, Levels
from convit.data.image_sets import ImageSet
from convit.data.scan import BadImage, look, without
from convit.data.selection import Selection
from convit.data.sources import Source
from convit.data.sources.layout import right_level
from convit.errors import InputError, counted, listing
from convit.events import Listener, ignore
from convit.files import composed

UNFAIR = "accuracy on them says too much; out-of-fold.csv in its folder has predictions of runs that did not"


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """What is known of the images that a model was trained on."""

    class_names: tuple[str, ...] = ()
    """The model's classes, which the images must have; empty if any classes are allowed."""
    root: str | None = None
    """The argument DATA that opens its images; None if it is not known, and then ``split`` is not known either."""
    split: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Split -> the names of its images."""
    contents: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Split -> what was noted of each image's content (:meth:`ImageSet.contents`), where it is known."""
    left_out: Sequence[str] = ()
    """The names of images that the run left out, because they do not decode."""
    folders: Mapping[str, Path] = field(default_factory=dict)
    """Split -> its folder in the data, where the run was told."""
    some_classes: bool = False
    """Whether it was trained on some of the classes of its data: images of the others are left out, not refused."""
    some_images: bool = False
    """Whether it was trained on some of the images of each class: ``split`` does not name the others."""

    @property
    def places(self) -> tuple[Path, ...]:
        """The folders that its images lie in, if it is known; or a list, or a name."""
        root = Path(self.root or "")
        return (root, *(root / folder for folder in self.folders.values()))


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluating:
    """Images to evaluate a model on."""

    split: Literal["auto", "train", "val", "test", "all"] = "auto"
    """``auto`` is the test split if there is one, or else val; or else, of images that the model's run split itself,
    those that it was not trained on; or else all images."""
    known: Known | None = None
    data_root: Path | None = None
    """Where data sets are downloaded to; None for the usual place."""
    check: bool = True
    """Whether every image is decoded first, and those that cannot be, or that a list names and are missing, are left
    out (:attr:`Selection.left_out`); without it such a file is found when it is read."""
    full_scale: float | None = None
    """The model's: :attr:`convit.preprocess.Preprocess.full_scale`."""
    tell: Listener = ignore
    """The listener that gets the progress of the check."""


def to_evaluate_on(source: Source, choice: Evaluating) -> Selection:
    """The images of a source to evaluate a model on. Errors are those of :func:`convit.data.select.select`."""
    known = choice.known or Known()
    split, images = _chosen(source, choice.split, known)
    notes = list(source.notes)
    if known.class_names:
        whole = len(images)
        images = _of_classes(source, images, known)
        if others := whole - len(images):
            notes.append(f"not evaluated: {counted(others, 'image')} of classes that the run left out by --classes")
    bad: list[BadImage] = []
    if choice.check:
        bad, levels = look(images, "checking images", choice.tell)
        images = without(images, bad)
        if not len(images):
            raise InputError(
                f"{source.name}: no image that decodes, such as {bad[0].name} ({bad[0].reason}); expected some"
            )
        if levels != Levels() and images.full_scale is None:
            notes.append(UNKNOWN_SCALE)
    notes += _said_of_learned(images, known, (choice.split, split), own=known.root == source.root)
    if (choice.split, split) == ("auto", "val") and "val" not in source.splits and (new := _new(source, known)):
        notes.append(
            f"not evaluated: {counted(len(new), 'image')} added since the run, such as {new[0]}; --split all takes all"
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


def _said_of_learned(images: ImageSet, known: Known, asked_and_taken: tuple[str, str], *, own: bool) -> list[str]:
    """What is to be said of images that the model has learned from, unless they were asked for.

    Args:
        images: to evaluate on.
        known: what is known of the model's images.
        asked_and_taken: the split that was asked for, and the one that is evaluated.
        own: whether the data is what the model was trained on.
    """
    asked, taken = asked_and_taken
    if asked == "train" or not known.class_names:
        return []
    learned = _learned(known).intersection(map(composed, images.names))
    if asked == "all" and own and learned:
        return [f"the run learned from {len(learned)} of the {len(images)} images: accuracy on them says too much"]
    if (asked, taken) == ("auto", "all"):
        if known.root is None:
            return ["it is not known which images the model learned from: they may be among these"]
        if learned:
            return [
                f"{len(learned)} of the {len(images)} files have names of images that the run learned from: "
                + ("if they are the same ones, take --split val" if "val" in known.split else UNFAIR)
            ]
    if own or taken == "train":
        return []  # the run itself has told of the same pictures in two splits
    contents = known.contents.get("train", ())
    note = learned_note(images, known.root, dict(zip(known.split.get("train", ()), contents, strict=False)))
    return [note] if note else []


def _new(source: Source, known: Known) -> list[str]:
    """The names of images that are not of the run: neither learned from nor validated on nor left out."""
    if known.some_images or known.some_classes:
        return []  # what was not drawn is not known by name
    names = {composed(name) for names in (*known.split.values(), known.left_out) for name in names}
    return [name for images in source.splits.values() for name in images.names if composed(name) not in names]


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


def _of_classes(source: Source, images: ImageSet, known: Known) -> ImageSet:
    """The images as the model's classes have them.

    Raises:
        InputError: an image of a class that the model does not know, unless it learned some of the classes.
    """
    if known.some_classes:
        learned = np.isin(list(map(composed, images.class_names)), list(map(composed, known.class_names)))
        images = images.subset(np.flatnonzero(learned[images.targets]))
    if not len(images):
        raise InputError(f"{source.name}: no image of the run's classes {listing(known.class_names)}; expected some")
    try:
        return images.with_classes(known.class_names)
    except InputError as error:
        hint = right_level(Path(source.root)) if Path(source.root).is_dir() else ""
        raise InputError(f"{error}{hint}") from None


def _learned(known: Known) -> set[str]:
    """The names of the images that a model learned from, in one Unicode form."""
    return set(map(composed, known.split.get("train", ())))
