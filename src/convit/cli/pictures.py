"""The pictures that ``convit predict`` is given, and how it tells what is in them.

Imports nothing heavy: ``convit_onnx``, which runs without PyTorch, takes this file out of the package.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from convit.data.folders import visible_files
from convit.data.images import is_image_name
from convit.errors import InputError


class NamedProbability(Protocol):
    """One class and how probable the model finds it, 0 to 1."""

    @property
    def class_name(self) -> str:
        """The class."""

    @property
    def probability(self) -> float:
        """0 to 1."""


Results = Sequence[tuple[Path, Sequence[NamedProbability]]]
"""For each picture its classes, best first."""


def pictures(given: Sequence[Path]) -> Iterator[Path]:
    """The files, and the pictures in the folders, at any depth, by name."""
    for path in given:
        if path.is_dir():
            found = [p for p in visible_files(path) if is_image_name(p.name)]
            if not found:
                raise InputError(f"{path}: no picture in it; expected files that end like .jpg or .png")
            yield from found
        elif path.is_file():
            yield path
        else:
            raise InputError(f"{path}: no such file or folder; expected a picture or a folder of pictures")


def write_csv(results: Results, path: Path) -> None:
    """A line for each picture and class."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "rank", "class", "probability"])
        for image, predictions in results:
            writer.writerows(
                [image, i, p.class_name, f"{p.probability:.6f}"] for i, p in enumerate(predictions, start=1)
            )


def show(results: Results) -> None:
    """A line for each picture: the path, then the classes with their probabilities."""
    width = min(48, max((len(str(path)) for path, _ in results), default=0))
    for path, predictions in results:
        classes = "   ".join(f"{printable(p.class_name)} {p.probability:6.1%}" for p in predictions)
        print(f"{printable(str(path)):{width}}  {classes}")


def printable(text: str) -> str:
    """A name from a user, on one line and without what a terminal would obey."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
