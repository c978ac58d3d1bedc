"""torchvision's data sets by name. torchvision is imported only when one is opened."""

import http.client
import os
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convit.data.image_sets import ArrayImages, FileImages, ImageSet
from convit.data.sources.interface import Opening, Source, SourceKind
from convit.errors import InputError, one_line

_DIGITS = tuple("0123456789")
_TRAIN_FLAG: dict[str, dict[str, Any]] = {"train": {"train": True}, "test": {"train": False}}
_TRAIN_TEST = {"train": {"split": "train"}, "test": {"split": "test"}}
_TRAIN_VAL = {"train": {"split": "train"}, "val": {"split": "val"}}
_TRAIN_VAL_TEST = _TRAIN_VAL | {"test": {"split": "test"}}

# What torchvision raises when it cannot fetch, unpack or find a data set.
_FAILURES = (OSError, RuntimeError, EOFError, http.client.HTTPException, tarfile.TarError, zipfile.BadZipFile)


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """How one data set is opened."""

    cls: str  # the class in torchvision.datasets
    splits: dict[str, dict[str, Any]]  # our split -> torchvision's arguments for it
    files: str  # where torchvision looks for the files, below the root
    classes: tuple[str, ...] | None = None  # class names where torchvision has none, or other than plain ones
    flip: bool = True  # whether a mirrored image still shows its class


# Left out: stanford_cars, which torchvision can no longer download, and pcam, which needs h5py and gdown.
_TABLE = {
    "caltech101": _Entry(cls="Caltech101", splits={"all": {}}, files="caltech101/101_ObjectCategories/"),
    "cifar10": _Entry(cls="CIFAR10", splits=_TRAIN_FLAG, files="cifar-10-batches-py/"),
    "cifar100": _Entry(cls="CIFAR100", splits=_TRAIN_FLAG, files="cifar-100-python/"),
    "country211": _Entry(cls="Country211", splits=_TRAIN_VAL_TEST | {"val": {"split": "valid"}}, files="country211/"),
    "dtd": _Entry(cls="DTD", splits=_TRAIN_VAL_TEST, files="dtd/dtd/"),
    "emnist": _Entry(
        cls="EMNIST",
        splits={split: flag | {"split": "balanced"} for split, flag in _TRAIN_FLAG.items()},
        files="EMNIST/raw/",
        flip=False,
    ),
    "eurosat": _Entry(cls="EuroSAT", splits={"all": {}}, files="eurosat/2750/"),
    "fashion_mnist": _Entry(cls="FashionMNIST", splits=_TRAIN_FLAG, files="FashionMNIST/raw/"),
    "fgvc_aircraft": _Entry(cls="FGVCAircraft", splits=_TRAIN_VAL_TEST, files="fgvc-aircraft-2013b/"),
    "flowers102": _Entry(cls="Flowers102", splits=_TRAIN_VAL_TEST, files="flowers-102/"),
    "food101": _Entry(cls="Food101", splits=_TRAIN_TEST, files="food-101/"),
    "gtsrb": _Entry(
        cls="GTSRB",
        splits=_TRAIN_TEST,
        files="gtsrb/GTSRB/",
        classes=tuple(f"{sign:05d}" for sign in range(43)),  # the names of its class folders
        flip=False,
    ),
    "imagenette": _Entry(
        cls="Imagenette",
        splits={split: words | {"size": "320px"} for split, words in _TRAIN_VAL.items()},
        files="imagenette2-320/",
    ),
    "kmnist": _Entry(cls="KMNIST", splits=_TRAIN_FLAG, files="KMNIST/raw/", flip=False),
    "mnist": _Entry(cls="MNIST", splits=_TRAIN_FLAG, files="MNIST/raw/", classes=_DIGITS, flip=False),
    "oxford_iiit_pet": _Entry(
        cls="OxfordIIITPet", splits=_TRAIN_TEST | {"train": {"split": "trainval"}}, files="oxford-iiit-pet/"
    ),
    "rendered_sst2": _Entry(cls="RenderedSST2", splits=_TRAIN_VAL_TEST, files="rendered-sst2/", flip=False),
    "stl10": _Entry(cls="STL10", splits=_TRAIN_TEST, files="stl10_binary/"),
    "svhn": _Entry(cls="SVHN", splits=_TRAIN_TEST, files="{train,test}_32x32.mat", classes=_DIGITS, flip=False),
}


def open_torchvision(name: str, opening: Opening) -> Source:
    """A data set of torchvision with its official splits; its class names keep torchvision's order.

    ``emnist`` is its ``balanced`` variant, turned upright; ``imagenette`` its 320 px one.

    Raises :class:`InputError` if the files are missing and cannot be downloaded; it says where to put them by hand.
    """
    entry, root = _TABLE[name], opening.data_root or default_root()
    sets: dict[str, ImageSet] = {}
    for split, arguments in entry.splits.items():
        dataset = _construct(name, entry, arguments, root, opening.download)
        class_names = entry.classes or _class_names(dataset)
        if hasattr(dataset, "data"):
            pixels, targets = _arrays(name, dataset)
            names = [f"{name}/{split}/{i:06d}" for i in range(len(pixels))]
            sets[split] = ArrayImages(pixels, names, targets, class_names)
        else:
            paths, targets = _files(dataset)
            names = [Path(os.path.relpath(path, root)).as_posix() for path in paths]
            sets[split] = FileImages(root, names, targets, class_names)
    return Source(name=name, root=name, class_names=class_names, flip=entry.flip, splits=sets)


def _construct(name: str, entry: _Entry, arguments: dict[str, Any], root: Path, download: bool) -> Any:
    from torchvision import datasets

    try:
        return getattr(datasets, entry.cls)(root, download=download, **arguments)
    except _FAILURES as error:
        tried = "the download failed" if download else "not found, and downloads are off"
        raise InputError(
            f"{name}: {tried} ({type(error).__name__}: {one_line(error)}); expected a network connection, "
            f"or the unpacked files of torchvision's {entry.cls} at {root / entry.files}"
        ) from error


def _class_names(dataset: Any) -> tuple[str, ...]:
    """torchvision's names: ``categories`` in Caltech101, tuples of synonyms in Imagenette, strings elsewhere."""
    names = dataset.categories if hasattr(dataset, "categories") else dataset.classes
    return tuple(name if isinstance(name, str) else name[0] for name in names)


def _arrays(name: str, dataset: Any) -> tuple[NDArray[np.uint8], Sequence[int]]:
    """(N, height, width) or (N, height, width, 3) pixels, and targets, of a data set that is held in memory."""
    pixels = np.asarray(dataset.data)
    if pixels.ndim == 4 and pixels.shape[1] == 3:  # channels first: stl10, svhn
        pixels = pixels.transpose(0, 2, 3, 1)
    if name == "emnist":  # its files hold every character transposed
        pixels = pixels.transpose(0, 2, 1)
    targets = dataset.targets if hasattr(dataset, "targets") else dataset.labels
    return np.ascontiguousarray(pixels), np.asarray(targets).tolist()


def _files(dataset: Any) -> tuple[list[str], Sequence[int]]:
    """Paths and targets of a data set of files. Reading them ourselves honours EXIF and reports a file that is bad."""
    for attribute in ("samples", "_samples"):
        if hasattr(dataset, attribute):
            samples = getattr(dataset, attribute)
            return [path for path, _ in samples], [target for _, target in samples]
    if hasattr(dataset, "categories"):  # Caltech101
        folder = Path(dataset.root) / "101_ObjectCategories"
        pairs = zip(dataset.y, dataset.index, strict=True)
        return [str(folder / dataset.categories[y] / f"image_{i:04d}.jpg") for y, i in pairs], dataset.y
    return getattr(dataset, "_image_files", None) or dataset._images, dataset._labels


def default_root() -> Path:
    """Where data sets are downloaded to: ``$CONVIT_DATA``, or else ``~/.cache/convit/data``.

    Raises:
        InputError: no home folder is known.
    """
    place = Path(os.environ.get("CONVIT_DATA") or "~/.cache/convit/data")
    try:
        return place.expanduser()
    except RuntimeError as error:
        raise InputError(f"data-root: no home folder is known for {place}, expected one: --data-root DIR") from error


TORCHVISION = SourceKind(takes=lambda data: data in _TABLE, open=open_torchvision, names=tuple(_TABLE))
