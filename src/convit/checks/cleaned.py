"""The cleaned list: the images of a folder or a list without what is faulty, for ``convit train LIST``.

Of the images to validate and to test on, only what cannot be read, or is repeated among them to the byte, is left out:
numbers on them stay comparable. So of a picture in two splits the one to learn from goes.
"""

import os
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from convit.checks.faults import firsts
from convit.checks.pictures import Pictures
from convit.checks.report import Report
from convit.choices import Fault
from convit.data.image_sets import FileImages
from convit.data.scan import BadImage
from convit.data.selection import Selection
from convit.data.sources.interface import is_one_line
from convit.errors import InputError
from convit.files import absolute, check_apart, write_csv

FIRST = ("test", "val", "train", "all")
"""Of the same picture in several splits the one is kept that comes first here."""


def check_list(path: Path, selection: Selection, *, overwrite: bool) -> None:
    """Whether a list can be written, asked before the work.

    Raises:
        InputError: images that are no files, a name that does not end in .csv, a file that is there, or a place among
            the images.
    """
    if not all(isinstance(images, FileImages) for images in selection.splits.values()):
        raise InputError("write: got it for images that are no files of their own; expected a folder, or a list")
    if path.suffix.lower() != ".csv":
        raise InputError(f"write: got {path}, expected a name that ends in .csv")
    check_apart("write", path, [Path(selection.root)])
    if absolute(path) == absolute(Path(selection.root)):
        raise InputError(f"write: got {path}, the list that is checked; expected another name: it is never changed")
    if path.exists() and not overwrite:
        raise InputError(f"write: {path} exists; expected another name, or --overwrite")


def left_out(report: Report, faults: Collection[Fault], path: Path) -> dict[int, str]:
    """The images that a list leaves out, by number, and why.

    Args:
        report: what was found.
        faults: which faults.
        path: where the list is going to be.
    """
    pictures = report.pictures
    gone: dict[int, str] = {}
    if "unreadable" in faults:
        gone |= {i: f"does not decode: {reason}" for i, reason in report.unreadable}
    for i in range(len(pictures)):
        if i not in gone and (why := _not_listed(pictures, i, path)):
            gone[i] = why
    order = sorted(range(len(pictures)), key=lambda i: (FIRST.index(pictures.splits[i]), i))
    if "duplicates" in faults:
        gone |= dict(_repeated(report, gone, order))
    if "near-duplicates" in faults:
        gone |= dict(_nearly_repeated(report, gone, order))
    if "labels" in faults and report.labels is not None:
        for doubt in report.labels.doubts:
            if pictures.splits[doubt.image] in ("train", "all"):
                suggested = pictures.class_names[doubt.suggested]
                gone.setdefault(
                    doubt.image, f"probably of class {suggested!r}, not {pictures.class_name(doubt.image)!r}"
                )
    return gone


def _repeated(report: Report, gone: Collection[int], order: list[int]) -> Iterator[tuple[int, str]]:
    """All but one of the same to the byte, or, of several classes, all: which label is wrong is not known."""
    pictures = report.pictures
    rank = {i: place for place, i in enumerate(order)}
    for group in report.exact:
        kept, *others = sorted(group.images, key=rank.__getitem__)
        for i in (kept, *others) if group.classes else others:
            if i not in gone:
                other = kept if i != kept else others[0]
                how = "also in class " + repr(pictures.class_name(other)) if group.classes else "the same"
                yield i, f"the same file as {pictures.name(other)}" + (f", {how}" if group.classes else "")


def _nearly_repeated(report: Report, gone: Collection[int], order: list[int]) -> Iterator[tuple[int, str]]:
    """Those that are nearly the same as one that is kept, of the same class. Of another class both stay: likeness is no
    proof."""
    pictures = report.pictures
    first = firsts(len(pictures), report.exact)
    beside: dict[int, list[int]] = {}
    for a, b in report.near_pairs:
        beside.setdefault(a, []).append(b)
        beside.setdefault(b, []).append(a)
    copies: dict[int, list[int]] = {}
    for i, original in enumerate(first.tolist()):
        copies.setdefault(original, []).append(i)
    kept: set[int] = set()
    for i in order:
        if i in gone:
            continue
        near = (copy for other in beside.get(int(first[i]), ()) for copy in copies[other])
        held_out = pictures.splits[i] in ("test", "val")
        same = next((n for n in near if n in kept and pictures.targets[n] == pictures.targets[i]), None)
        if same is not None and not (held_out and pictures.splits[same] == pictures.splits[i]):
            yield i, f"nearly the same as {pictures.name(same)}"
        else:
            kept.add(i)


def _not_listed(pictures: Pictures, i: int, path: Path) -> str:
    """Why an image cannot be in a list; empty if it can."""
    for what, text in (("path", _path(pictures, i, path)), ("class", pictures.class_name(i))):
        try:
            text.encode()
        except UnicodeEncodeError:
            return f"its {what} is no UTF-8, which a list has to be"
        if not is_one_line(text) or text != text.strip():
            return f"its {what} has line ends, or blanks at an end, which a list cannot have"
    return ""


def _path(pictures: Pictures, i: int, path: Path) -> str:
    """The file of an image, from the folder of the list."""
    images, index = pictures.place(i)
    assert isinstance(images, FileImages)
    return os.path.relpath(os.path.normpath(images.path(index)), absolute(path).parent)


def write_list(report: Report, gone: dict[int, str], path: Path) -> Report:
    """Writes the list, with a column ``split`` where the data has splits.

    Returns:
        The report, with what is not in the list.

    Raises:
        InputError: too little is left for a list that can be trained on; then nothing is written.
    """
    pictures = report.pictures
    divided = "all" not in pictures.sets
    rows: list[tuple[str, ...]] = [("path", "label", *(["split"] if divided else []))]
    for i in range(len(pictures)):
        if i not in gone:
            split = [pictures.splits[i]] if divided else []
            rows.append((_path(pictures, i, path), pictures.class_name(i), *split))
    left = {row[1] for row in rows[1:] if not divided or row[2] == "train"}
    if len(left) < 2:
        raise InputError(f"write: {len(left)} classes to learn from are left without the faults, expected at least 2")
    if others := sorted({row[1] for row in rows[1:]} - left):
        raise InputError(
            f"write: class {others[0]!r} has images to validate or to test on, and without the faults none to learn "
            "from; expected some: fewer kinds of faults in --leave-out, or more images"
        )
    write_csv(path, rows)
    return replace(report, left_out=[BadImage(pictures.name(i), why) for i, why in sorted(gone.items())])
