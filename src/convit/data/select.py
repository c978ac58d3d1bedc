"""The entry point: from the argument DATA to the selected images, their classes and splits, and the files left out.

    DATA -> a source opens it (:mod:`convit.data.sources`) -> classes -> what is left out -> splits -> a subset

Training selects with :class:`Learning`, evaluation with :class:`Evaluating`, a check of the data with
:class:`Checking`; all get a :class:`Selection`.
Without torch, so that data that cannot be used is refused at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from convit.data.evaluating import Evaluating, Known, to_evaluate_on
from convit.data.image_sets import ImageSet
from convit.data.images import pictures
from convit.data.keeping import keep
from convit.data.packs import NOTHING_KEPT, Packs
from convit.data.record import first_changed_name
from convit.data.sampling import class_balanced_subset, folds_of, stratified_split
from convit.data.scan import BadImage, drop, refuse_bad
from convit.data.selection import Facts, Selection
from convit.data.sources import Source, open_source, scaled
from convit.data.sources.interface import class_called, path_of
from convit.data.sources.layout import splits_beside, subfolders
from convit.errors import InputError, counted
from convit.events import Listener, ignore
from convit.files import absolute

__all__ = [
    "BadImage",
    "Checked",
    "Checking",
    "Evaluating",
    "Facts",
    "Known",
    "Learning",
    "Selection",
    "check",
    "pictures",
    "refuse_bad",
    "select",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Learning:
    """Images to train on: which of them, and in which splits. All draws are functions of the seed."""

    data_root: Path | None = None
    """Where data sets are downloaded to; None for the usual place."""
    classes: int | None = None
    """Take the first so many of the classes, in their order; None for all."""
    seed: int = 0
    val_fraction: float = 0.1
    """Part of each class that is held out to validate on, where the data has no val split; between 0 and 1."""
    fold: tuple[int, int] | None = None
    """``(i, k)``: validate on the i-th, from 1, of k parts of each class in place of ``val_fraction``."""
    fraction: float | None = None
    """Learn from this part of each class, drawn, above 0 and up to 1; None for all."""
    per_class: int | None = None
    """Learn from so many images of each class, drawn; None for all."""
    skip_test: bool = False
    """Leave the test split out, unread."""
    missing: bool = False
    """Whether a list may name files that are not there, for :func:`check` to find."""
    folders: Mapping[str, Path] = field(default_factory=dict)
    """Split -> its folder, of a folder of images whose splits were named; empty to find them by their names."""
    leave_out: tuple[BadImage, ...] = ()
    """Images that are dropped before anything is drawn."""
    full_scale: float | None = None
    """The value that is white where grey values are floats or have more than 8 bits; None where it is not known."""
    recorded: Mapping[str, Sequence[str]] | None = None
    """Split -> the names of the images when the run began: the same are selected, in this order, and nothing is
    drawn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checking:
    """All images there are, to look for faults in them: as they are found, nothing held out, drawn or left out."""

    data_root: Path | None = None
    """Where data sets are downloaded to; None for the usual place."""
    folders: Mapping[str, Path] = field(default_factory=dict)
    """Split -> its folder, of a folder of images whose splits were named; empty to find them by their names."""
    full_scale: float | None = None
    """The value that is white where grey values are floats or have more than 8 bits; None where it is not known."""


def select(data: str, choice: Learning | Evaluating | Checking) -> Selection:
    """Choose images.

    Args:
        data: a folder, a list, shards, or the name of a data set (:func:`convit.data.open_source`).
        choice: what they are for.

    Raises:
        InputError: no data there, or no such split or classes in it; to evaluate, no image that can be decoded.

    >>> selection = select("digits", Learning(per_class=20))
    >>> {split: len(images) for split, images in selection.splits.items()}, selection.available
    ({'train': 200, 'val': 143, 'test': 359}, 1295)
    >>> list(select("digits", Evaluating()).splits)
    ['test']
    """
    if isinstance(choice, Learning):
        source = open_source(data, data_root=choice.data_root, missing=choice.missing, folders=choice.folders)
        return _to_learn_from(scaled(source, choice.full_scale), choice)
    folders = choice.folders if isinstance(choice, Checking) else _folders_to_evaluate(data, choice.known)
    source = open_source(data, data_root=choice.data_root, min_classes=1, missing=True, empty=True, folders=folders)
    source = scaled(source, choice.full_scale)
    if isinstance(choice, Evaluating):
        return to_evaluate_on(source, choice)
    return Selection(  # as they are found
        name=source.name,
        root=source.root,
        class_names=source.class_names,
        splits=source.splits,
        source=source,
        available=sum(map(len, source.splits.values())),
        notes=(*source.notes, *splits_beside(Path(source.root))),
    )


def _folders_to_evaluate(data: str, known: Known | None) -> Mapping[str, Path]:
    """The split folders that a run was told, if this is its data, or a copy: then all of them are there. Or DATA as
    undivided, if all of its folders are called like classes of the run, whatever else they look like."""
    root = path_of(data)
    if known is None or not root.is_dir():
        return {}
    folders = known.folders.values()
    copied = all((root / folder).is_dir() for folder in folders) and not set(folders) <= {Path()}
    if copied or (folders and str(absolute(root)) == known.root):
        return known.folders
    names = {class_called(folder.name, root) for folder in subfolders(root)}
    return {"all": Path()} if names and names <= set(known.class_names) else {}


@dataclass(frozen=True, slots=True)
class Checked:
    """What is known of the images of a source once they are decoded."""

    bad: list[BadImage]
    """Those that cannot be decoded, or are not of the full scale."""
    full_scale: float | None
    """The value that is white where grey values are floats or have more than 8 bits: the one that was given, or that
    of the images to learn from; None if these have 8 bits."""
    checksums: dict[str, str] = field(default_factory=dict)
    """By name, of images that may be the same as others (:func:`convit.data.duplicates.duplicate_notes`)."""


def check(
    selection: Selection, tell: Listener = ignore, learning: Packs = NOTHING_KEPT, measuring: Packs = NOTHING_KEPT
) -> Checked:
    """Decodes all images of the source that no pack knows, also those that were not drawn, and keeps their copies.

    Args:
        selection: for training.
        tell: the listener that gets the progress.
        learning: where the copies of images to learn from are kept, and of those that were not drawn.
        measuring: where those of the images to validate and to test on are kept.

    Raises:
        InputError: it is not clear what is white.
    """
    bad: list[BadImage] = []
    scale, checksums = selection.full_scale, dict[str, str]()
    splits = selection.source.splits
    held_out = {name for split, images in selection.splits.items() if split != "train" for name in images.names}
    for split in sorted(splits, key=("train", "all", "val", "test").index):
        what = "checking images" if split == "all" else f"checking {split} images"
        images = splits[split].scaled(scale)
        apart = np.array([name in held_out for name in images.names], dtype=bool)
        parts = ((np.flatnonzero(~apart), learning), (np.flatnonzero(apart), measuring))
        known = keep([(images.subset(some), packs) for some, packs in parts if len(some)], what, tell)
        place = {name: i for i, name in enumerate(images.names)}
        bad += sorted(known.bad, key=lambda image: place[image.name])
        checksums |= known.checksums
        if split in ("train", "all"):
            scale = scale or known.levels.full_scale(selection.name)
    return Checked(bad, scale, checksums)


def _to_learn_from(source: Source, choice: Learning) -> Selection:
    splits = {split: images for split, images in source.splits.items() if split != "test"}
    if choice.skip_test and splits:  # a test split alone is refused as ever
        source = replace(source, splits=splits)
    if choice.classes is not None:
        source = _some_classes(source, choice)
    notes = list(source.notes)
    if choice.fold is not None and "val" in source.splits:
        source = replace(source, splits={split: images for split, images in source.splits.items() if split != "val"})
        notes.append("its val split is not used: each fold validates on a part of the images to learn from")
    if choice.leave_out:
        kept = {split: drop(images, choice.leave_out) for split, images in source.splits.items()}
        source = replace(source, splits=kept)
    whole = source.splits.get("train", source.splits.get("all"))
    if whole is None:
        there = " and ".join(source.splits)
        raise InputError(f"{source.name}: only a {there} split in it; expected a train/ folder or class folders")
    chosen, available = _drawn(source, whole, choice) if choice.recorded is None else _again(source, whole, choice)
    if not len(chosen["val"]):
        raise InputError(f"{source.name}: one image per class, none left to validate on; expected at least 2 per class")
    return Selection(
        name=source.name,
        root=source.root,
        class_names=source.class_names,
        splits=chosen,
        source=source,
        available=available,
        left_out=choice.leave_out,
        notes=(*notes, *splits_beside(Path(source.root))),
    )


def _some_classes(source: Source, choice: Learning) -> Source:
    """The source with its first classes and their images alone, or with those recorded."""
    assert choice.classes is not None
    if choice.recorded is None:
        known = len(source.class_names)
        if not 2 <= choice.classes <= known:
            raise InputError(f"classes: got {choice.classes}, expected 2 to {known}, the classes of {source.name}")
        labels = np.arange(choice.classes)
    else:
        names = {name for recorded in choice.recorded.values() for name in recorded}
        labels = np.unique(np.concatenate([images.called(names).targets for images in source.splits.values()]))
    class_names = tuple(source.class_names[label] for label in labels)
    splits = {
        split: images.subset(np.flatnonzero(np.isin(images.targets, labels))).with_classes(class_names)
        for split, images in source.splits.items()
    }
    return replace(source, class_names=class_names, splits=splits)


def _drawn(source: Source, whole: ImageSet, choice: Learning) -> tuple[dict[str, ImageSet], int]:
    """The splits by options and seed, and the number of training images before a subset is drawn."""
    train, val = whole, source.splits.get("val")
    if choice.fold is not None:
        number, folds = choice.fold
        _check_folds(source, whole, folds)
        of = folds_of(whole.targets, folds, choice.seed)
        train, val = whole.subset(np.flatnonzero(of != number - 1)), whole.subset(np.flatnonzero(of == number - 1))
    elif val is None:
        kept, held_out = stratified_split(whole.targets, choice.val_fraction, choice.seed)
        train, val = whole.subset(kept), whole.subset(held_out)
    available = len(train)
    if choice.fraction is not None or choice.per_class is not None:
        drawn = class_balanced_subset(
            train.targets, fraction=choice.fraction, per_class=choice.per_class, seed=choice.seed
        )
        train = train.subset(drawn)
    test = {split: images for split, images in source.splits.items() if split == "test"}
    return {"train": train, "val": val} | test, available


def _check_folds(source: Source, whole: ImageSet, folds: int) -> None:
    """Raises :class:`InputError` if a fold would have no image of a class."""
    counts = whole.counts()
    label = int(np.where(counts > 0, counts, counts.max() + 1).argmin())
    if folds > counts[label]:
        least = int(counts[label])
        some = counted(least, "image")
        expected = f"2 to {least}" if least > 1 else "at least 2 images of each class"
        raise InputError(
            f"folds: got {folds}, expected {expected}: class {source.class_names[label]!r} of {source.name} has {some} "
            "to learn from, and each fold needs one"
        )


def _again(source: Source, whole: ImageSet, choice: Learning) -> tuple[dict[str, ImageSet], int]:
    """The splits that were recorded, by name.

    Raises:
        InputError: one of their images is gone, or there are others than those that the run chose from.
    """
    assert choice.recorded is not None
    recorded = {split: list(names) for split, names in choice.recorded.items()}
    pools = {"train": whole, "val": source.splits.get("val", whole)}
    pools |= {split: images for split, images in source.splits.items() if split == "test"}
    places = {split: {name: i for i, name in enumerate(images.names)} for split, images in pools.items()}
    now = {split: [name for name in names if name in places.get(split, ())] for split, names in recorded.items()}
    some = choice.fraction is not None or choice.per_class is not None
    for split, images in pools.items():
        now.setdefault(split, [])
        if not (some and images is whole):  # those that were not drawn are not recorded
            known = {name for other in recorded if pools.get(other) is images for name in recorded[other]}
            now[split] += [name for name in images.names if name not in known]
    if change := first_changed_name(recorded, now):
        raise InputError(
            f"{source.name}: other images than when the run started: {change}; expected the same (a run that learns "
            "from others too is a new one, with --config and another --out)"
        )
    chosen = {split: images.subset([places[split][name] for name in now[split]]) for split, images in pools.items()}
    return chosen, len(whole) - (len(chosen["val"]) if pools["val"] is whole else 0)
