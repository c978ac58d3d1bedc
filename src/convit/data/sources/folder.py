"""A folder of images: classes are sub-folders, splits are train/, val/ and test/."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from convit.data.decoding import lacks_reader, reader_notes
from convit.data.image_sets import FileImages
from convit.data.images import IMAGE_SUFFIXES, is_hidden, is_image_name, names_below
from convit.data.sources.interface import Opening, Source, SourceKind, class_called, class_order, matched, path_of
from convit.data.sources.layout import (
    annotations,
    find_layout,
    loose_images,
    loose_note,
    named_layout,
    subfolders,
    wrong_level,
)
from convit.errors import InputError, counted, listing
from convit.files import absolute, read

_LAYOUT = (
    "one sub-folder of images for each class (cat/1.jpg, dog/2.jpg), or such folders inside train/, val/ and test/"
)


def open_folder(data: str, opening: Opening) -> Source:
    """The images of a folder, by class.

    ``folder/CLASS/**/IMAGE`` is one undivided set. ``folder/train/CLASS/**/IMAGE``, with ``val`` and ``test`` beside
    it, are splits, also under the other usual names (:func:`convit.data.sources.layout.find_layout`). A split like
    Tiny ImageNet's val, a folder ``images`` and a file of names and labels, is read too. What systems leave behind
    (:func:`convit.data.images.is_hidden`) is ignored.

    Classes are sorted by name, or by value if all are whole numbers. Where there is a train split its classes are the
    classes, and each split is matched to them by name.

    Image names are relative to the folder. In val and test a class folder may be empty.

    Raises:
        InputError: a folder without images or class folders, a class without an image, a class of val or test that
            train lacks, fewer classes than asked for, or folders that can be read as classes and as splits.
    """
    folder = path_of(data)
    try:
        layout = named_layout(folder, opening.folders) if opening.folders else find_layout(folder)
        found = _Found(notes=list(layout.notes))
        if folder not in layout.splits.values():
            found.hide_in(folder)
        sets = {
            split: found.labelled(
                folder, place, apart=layout.splits.values(), empty=opening.empty or split in ("val", "test")
            )
            for split, place in layout.splits.items()
        }
        class_names, matching = matched(
            sets, min_classes=opening.min_classes, where=str(folder), expected=_LAYOUT + wrong_level(folder)
        )
    except OSError as error:  # a folder that may not be listed
        raise InputError(f"{error.filename}: cannot be read ({error.strerror}); expected a folder of images") from error
    return Source(
        name=absolute(folder).name,
        root=str(absolute(folder)),
        class_names=class_names,
        ignored=tuple(name for name in found.ignored if not lacks_reader(name)),
        notes=(*found.notes, *found.left_out()),
        splits=matching,
    )


@dataclass
class _Found:
    """What is met while folders are read: the images, and what is left out."""

    notes: list[str]
    ignored: list[str] = field(default_factory=list)
    """Files that are no images by their names."""
    hidden: dict[str, int] = field(default_factory=dict)
    """Name of a hidden or system folder -> how many are called so."""

    def labelled(self, root: Path, folder: Path, *, apart: Iterable[Path], empty: bool) -> FileImages:
        """The images of a split, with classes of its own, without those in the folders of other splits."""
        if (file := annotations(folder)) is not None:
            return _annotated(root, folder / "images", file, self.notes)
        others = {absolute(other) for other in apart}
        classes: dict[str, list[str]] = {}
        labels = [sub for sub in subfolders(folder) if not any(o.is_relative_to(absolute(sub)) for o in others)]
        for sub in labels:
            classes.setdefault(class_called(sub.name, folder), []).extend(self._names(root, sub))
        self.hide_in(folder)
        if not any(classes.values()):
            found = _what_is_there(folder, len(classes), self.ignored)
            raise InputError(f"{folder}: {found}; expected {_LAYOUT}{wrong_level(folder)}")
        hollow = [name for name, names in classes.items() if not names]
        if hollow and not empty:
            raise InputError(f"{folder}: no image in class {listing(hollow)}{_only_others(hollow, self.ignored)}")
        if hollow:
            self.notes.append(f"{folder}: no image in class {listing(hollow)}: left out; training needs one")
        if loose := loose_images(folder):
            self.notes.append(loose_note(folder, loose))
        class_names = class_order(name for name in classes if classes[name])
        names = [name for label in class_names for name in classes[label]]
        targets = [target for target, label in enumerate(class_names) for _ in classes[label]]
        return FileImages(root, names, targets, class_names)

    def _names(self, root: Path, label: Path) -> list[str]:
        """The names of the images in a class folder, at any depth."""
        prefix = Path(os.path.relpath(label, root)).as_posix()
        names: list[str] = []
        for below in names_below(label):
            last = below.rpartition("/")[2]
            if is_hidden(last):
                self._hide([label / below])
            else:
                (names if is_image_name(last) else self.ignored).append(f"{prefix}/{below}")
        return names

    def hide_in(self, folder: Path) -> None:
        """Counts the hidden folders right in a folder."""
        self._hide(path for path in folder.iterdir() if is_hidden(path.name))

    def _hide(self, paths: Iterable[Path]) -> None:
        for path in paths:
            if path.is_dir():
                self.hidden[path.name] = self.hidden.get(path.name, 0) + 1

    def left_out(self) -> list[str]:
        """What is said of hidden folders and of pictures that cannot be read, a line for each kind."""
        lines = []
        if self.hidden:
            counted = sorted(self.hidden.items())
            names = ", ".join(f"{name!r} ({count} times)" if count > 1 else repr(name) for name, count in counted)
            lines.append(f"left out hidden and system folders: {names}")
        return [*lines, *reader_notes(self.ignored)]


def _annotated(root: Path, images: Path, file: Path, notes: list[str]) -> FileImages:
    """A split whose labels are in a file: a line has the name of an image, a tab, its class, and anything behind.

    Images that it does not name are left out, and said in ``notes``.

    Raises:
        InputError: no such image, or another kind of file.
    """
    labels: dict[str, str] = {}
    there = {path.name for path in images.iterdir()}
    for number, line in enumerate(read(file).decode("utf-8-sig", "replace").splitlines(), start=1):
        if not line.strip():
            continue
        name, _, rest = line.partition("\t")
        label = class_called(rest.partition("\t")[0].strip(), f"{file}, line {number}")
        if not label or name not in there:
            what = f"no image {name!r} in {images}" if label else "no label"
            raise InputError(f"{file}, line {number}: {what}; expected the name of an image, a tab and its class")
        if labels.setdefault(name, label) != label:
            raise InputError(
                f"{file}, line {number}: {name!r} has another class than before; expected one for each image"
            )
    if not labels:
        raise InputError(f"{file}: an empty file; expected the name of an image, a tab and its class in each line")
    if unnamed := sorted(name for name in there - labels.keys() if is_image_name(name)):
        notes.append(f"left out {counted(len(unnamed), 'image')} that {file.name} does not name, such as {unnamed[0]}")
    class_names = class_order(labels.values())
    position = {name: i for i, name in enumerate(class_names)}
    prefix = Path(os.path.relpath(images, root))
    names = sorted(labels)
    return FileImages(root, [(prefix / n).as_posix() for n in names], [position[labels[n]] for n in names], class_names)


def _only_others(hollow: list[str], ignored: list[str]) -> str:
    """What is in class folders that have no image, and what is expected of them."""
    inside = [name for name in ignored if not {*Path(name).parts}.isdisjoint(hollow)]
    found = f" (only {listing(sorted({Path(name).suffix for name in inside}))} files)" if inside else ""
    advice = "; ".join(reader_notes(inside)) or "or no such folder"
    return f"{found}; expected at least one {', '.join(IMAGE_SUFFIXES[:4])}, ... in each class folder, {advice}"


def _what_is_there(folder: Path, classes: int, ignored: list[str]) -> str:
    if loose := loose_images(folder):
        return f"{counted(len(loose), 'image')}, but not in class folders"
    files = [*ignored, *sorted(path.name for path in folder.iterdir() if path.is_file() and not is_hidden(path.name))]
    some = f" (but files such as {files[0]})" if files else ""
    advice = "".join(f"; {note}" for note in reader_notes(files))
    if classes or files:
        return f"{f'no image in {classes} folders' if classes else 'no class folders'}{some}{advice}"
    return "an empty folder, or one with no class folders"


FOLDER = SourceKind(takes=lambda data: path_of(data).is_dir(), open=open_folder, expected="a folder of images")
