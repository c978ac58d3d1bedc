"""The word after ``convit train``: a folder, a list, shards, or the name of a data set."""

import os
from pathlib import Path

import numpy as np

from convit.data.folders import open_folder
from convit.data.hub_sets import PREFIX, is_saved, open_hub, open_saved
from convit.data.image_sets import ArrayImages, DataSource, listing
from convit.data.manifests import MANIFEST_SUFFIXES, open_manifest
from convit.data.sampling import stratified_split
from convit.data.shard_files import holds_shards, is_shard, is_shard_pattern
from convit.data.shards import open_shards
from convit.data.torchvision_sets import TORCHVISION_NAMES, open_torchvision
from convit.errors import InputError, nearest

SOURCE_NAMES = ("digits", *TORCHVISION_NAMES)


_KINDS = "a folder of images, a .csv, .tsv or .parquet list, .tar shards, 'hf:owner/name'"


def open_source(
    data: str, *, root: Path | None = None, download: bool = True, min_classes: int = 2, missing: bool = False
) -> DataSource:
    """Open labelled images by path or by name.

    A known name means that data set even where a folder of the same name lies beside: ``./digits`` is the folder.

    Args:
        data: one of ``SOURCE_NAMES``; a data set of the Hub, ``hf:owner/name`` (:func:`convit.data.hub_sets.open_hub`);
            a folder of images (its layouts: :func:`convit.data.open_folder`); a folder that ``save_to_disk`` of the
            ``datasets`` library wrote; a list of images (:func:`convit.data.manifests.open_manifest`); or WebDataset
            shards, as a file, folder or pattern (:func:`convit.data.shards.open_shards`).
        root: where data sets are downloaded to; by default ``$CONVIT_DATA``, or else ``~/.cache/convit/data``, and for
            the Hub's where its library keeps them.
        download: fetch a data set of torchvision that is not there yet.
        min_classes: how few classes there may be; evaluation can do with 1.
        missing: whether a list may name files that are not there; they are found as bad ones when they are read.

    Raises:
        InputError: one line that names the file, class or data set, what was found and what was expected.

    >>> source = open_source("digits")
    >>> len(source.train), len(source.test), source.class_names[:3]
    (1438, 359, ('0', '1', '2'))
    """
    if data == "digits":
        return open_digits()
    if data in TORCHVISION_NAMES:
        return open_torchvision(data, root=root or default_root(), download=download)
    if data.startswith(PREFIX):
        return open_hub(data, cache_dir=root, min_classes=min_classes)
    return _open_path(data, min_classes, missing)


def _open_path(data: str, min_classes: int, missing: bool) -> DataSource:
    """A file, a folder, or a pattern of files."""
    path = Path(data).expanduser()
    if not data.strip() or not path.exists():
        if is_shard_pattern(data):
            return open_shards(data, min_classes=min_classes)
        raise InputError(
            f"{data!r}: no such folder or data set{_nearest_source(data, path)}; "
            f"expected {_KINDS}, or one of {listing(SOURCE_NAMES, most=len(SOURCE_NAMES))}"
        )
    try:
        if path.is_dir():
            if is_saved(path):
                return open_saved(path, min_classes=min_classes)
            shards = holds_shards(path)
            return open_shards(data, min_classes=min_classes) if shards else open_folder(path, min_classes=min_classes)
        if path.suffix.lower() in MANIFEST_SUFFIXES:
            return open_manifest(path, min_classes=min_classes, missing=missing)
        if is_shard(path):
            return open_shards(data, min_classes=min_classes)
    except OSError as error:  # a folder that may not be listed
        raise InputError(f"{error.filename}: cannot be read ({error.strerror}); expected {_KINDS}") from error
    raise InputError(f"{data}: a file; expected {_KINDS}, or the name of a data set")


def open_digits() -> DataSource:
    """scikit-learn's 1797 handwritten digits, 8x8, grey: real ones, and no download.

    The test part is a fifth of each class, drawn once and for all: no seed or option of a run changes it.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = np.round(bunch.images / 16 * 255).astype(np.uint8)  # they come as 0 .. 16
    class_names = tuple(str(digit) for digit in bunch.target_names)
    names = [f"digits/{i:04d}" for i in range(len(pixels))]
    images = ArrayImages(pixels, names, bunch.target, class_names)
    train, test = stratified_split(images.targets, 0.2, seed=0)
    return DataSource(
        name="digits",
        root="digits",
        class_names=class_names,
        parts={"train": images.subset(train), "test": images.subset(test)},
        flip=False,
    )


def default_root() -> Path:
    """Where data sets are downloaded to: ``$CONVIT_DATA``, or else ``~/.cache/convit/data``."""
    return Path(os.environ.get("CONVIT_DATA") or "~/.cache/convit/data").expanduser()


def _nearest_source(data: str, path: Path) -> str:
    """The hint for a misspelt name, folder or list."""
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    siblings = [str(entry) for entry in beside if entry.is_dir() or entry.suffix.lower() in MANIFEST_SUFFIXES]
    return nearest(data, [*SOURCE_NAMES, *siblings])
