"""The word after ``convit train``: a folder, ``digits``, or the name of a torchvision data set."""

import os
from pathlib import Path

import numpy as np

from convit.data.folders import open_folder
from convit.data.image_sets import ArrayImages, DataSource, listing
from convit.data.sampling import stratified_split
from convit.data.torchvision_sets import TORCHVISION_NAMES, open_torchvision
from convit.errors import InputError, nearest

SOURCE_NAMES = ("digits", *TORCHVISION_NAMES)


def open_source(data: str, *, root: Path | None = None, download: bool = True, min_classes: int = 2) -> DataSource:
    """Open labelled images by folder or by name.

    A known name means that data set even where a folder of the same name lies beside: ``./digits`` is the folder.

    Args:
        data: a folder (its layouts: :func:`convit.data.open_folder`), or one of ``SOURCE_NAMES``.
        root: where data sets are downloaded to; by default ``$CONVIT_DATA``, or else ``~/.cache/convit/data``.
        download: fetch a data set that is not there yet.
        min_classes: how few classes a folder may have; evaluation can do with 1.

    Raises:
        InputError: one line that names the folder, class or data set, what was found and what was expected.

    >>> source = open_source("digits")
    >>> len(source.train), len(source.test), source.class_names[:3]
    (1438, 359, ('0', '1', '2'))
    """
    if data == "digits":
        return open_digits()
    if data in TORCHVISION_NAMES:
        return open_torchvision(data, root=root or default_root(), download=download)
    folder = Path(data).expanduser()
    if not data.strip() or not folder.exists():
        raise InputError(
            f"{data!r}: no such folder or data set{_nearest_source(data, folder)}; "
            f"expected a folder of images or one of {listing(SOURCE_NAMES, most=len(SOURCE_NAMES))}"
        )
    if not folder.is_dir():
        raise InputError(f"{data}: a file; expected a folder of images, or the name of a data set")
    return open_folder(folder, min_classes=min_classes)


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


def _nearest_source(data: str, folder: Path) -> str:
    """The hint for a misspelt name or folder."""
    beside = folder.parent.iterdir() if folder.parent.is_dir() else ()
    siblings = [str(path) for path in beside if path.is_dir()]
    return nearest(data, [*SOURCE_NAMES, *siblings])
