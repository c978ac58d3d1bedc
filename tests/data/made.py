"""Pictures for tests of data, and the same ones written as every kind of source."""

from collections.abc import Callable
from pathlib import Path

import pytest

from convit.data import BadImage, ImageSet, open_source
from convit.data.scan import look
from convit.data.select import Evaluating, Learning, Selection, select
from convit.events import ignore
from tests import helpers
from tests.data.shards import shard
from tests.training.small import photos  # noqa: F401  the tests of data take it from here

COUNTS = {"ape": 6, "bee": 5, "cow": 7}

Labelled = list[tuple[Path, str]]
"""Image files with their classes."""


def labels(images: ImageSet) -> dict[str, str]:
    """Name -> class of each image."""
    return dict(zip(images.names, (images.class_names[t] for t in images.targets), strict=True))


def scan(images: ImageSet) -> list[BadImage]:
    """The images that do not decode."""
    return look(images, "scan", ignore)[0]


def reds(images: ImageSet) -> list[int]:
    """The red of each image's corner, which tells which it is."""
    return [images.read(i).getpixel((0, 0))[0] for i in range(len(images))]


def names(selection: Selection) -> dict[str, list[str]]:
    """Split -> the names of its images."""
    return {split: list(images.names) for split, images in selection.splits.items()}


def sizes(selection: Selection) -> dict[str, int]:
    """Split -> how many images."""
    return {split: len(images) for split, images in selection.splits.items()}


def refused(data: object, choice: Learning | Evaluating) -> str:
    """The one line that the choice is refused with."""
    return helpers.refused(lambda: select(str(data), choice))


def fails(data: object, *words: str) -> None:
    """Opening it is refused in one line with these words."""
    helpers.refused(lambda: open_source(str(data)), *words)


def damage(path: Path) -> None:
    """Makes a file that does not decode."""
    path.write_bytes(b"no picture")


def as_folder(files: Labelled, folder: Path) -> str:
    """The folder of classes itself."""
    return str(files[0][0].parent.parent)


def as_list(files: Labelled, folder: Path) -> str:
    """A .csv of absolute paths."""
    rows = [f"{file},{label}\n" for file, label in files]
    (folder / "list.csv").write_text("path,label\n" + "".join(rows))
    return str(folder / "list.csv")


def as_shards(files: Labelled, folder: Path) -> str:
    """Two shards, the second from the middle of a class on."""
    for number, some in enumerate((files[:7], files[7:])):
        pairs = [((f"{i:02d}.png", file.read_bytes()), (f"{i:02d}.txt", label)) for i, (file, label) in enumerate(some)]
        shard(folder / f"photos-{number}.tar", dict(member for pair in pairs for member in pair))
    return str(folder / "photos-{0..1}.tar")


def as_saved(files: Labelled, folder: Path) -> str:
    """A folder of ``save_to_disk``."""
    datasets = pytest.importorskip("datasets", reason="needs the library 'datasets', of the extra [hub]")
    datasets.disable_progress_bars()
    names = sorted({label for _, label in files})
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    cells = {"image": [str(file) for file, _ in files], "label": [label for _, label in files]}
    datasets.Dataset.from_dict(cells, features=features).save_to_disk(str(folder / "saved"))
    return str(folder / "saved")


WRITTEN: tuple[Callable[[Labelled, Path], str], ...] = (as_folder, as_list, as_shards, as_saved)
"""Ways to write the same labelled pictures; each gives the word that opens them."""
