"""A folder of images to a data source: classes are sub-folders, parts are train/, val/ and test/."""

import os
from collections.abc import Iterator
from pathlib import Path

from convit.data.image_sets import DataSource, FileImages, listing, matched, part_called
from convit.data.images import IMAGE_SUFFIXES, is_hidden, is_image_name
from convit.errors import InputError

_LAYOUT = (
    "one sub-folder of images for each class (cat/1.jpg, dog/2.jpg), or such folders inside train/, val/ and test/"
)


def open_folder(folder: Path, *, min_classes: int = 2) -> DataSource:
    """The images of a folder, by class.

    ``folder/CLASS/**/IMAGE`` is one undivided set. ``folder/train/CLASS/**/IMAGE``, with ``val`` (also ``valid`` or
    ``validation``) and ``test`` beside it, are parts; upper or lower case does not matter. A folder called ``train``
    is a part if it has sub-folders itself, and a part called alike stands beside it or no other folder holds images;
    otherwise it is a class. Names starting with a dot, ``Thumbs.db`` and ``__MACOSX`` are ignored.

    Classes are sorted by name. Where there is a train part its classes are the classes, and each part is matched to
    them by name.

    Raises :class:`InputError` for a folder without images or class folders, a class without an image (in val and test
    that is allowed), a class of val or test that train lacks, or fewer than ``min_classes`` classes.
    """
    try:
        parts = _part_folders(folder)
        sets, ignored = _read_parts(folder, parts or {"whole": folder})
    except OSError as error:  # a folder that may not be listed
        raise InputError(f"{error.filename}: cannot be read ({error.strerror}); expected a folder of images") from error
    class_names, matching = matched(sets, min_classes=min_classes, where=str(folder), expected=_LAYOUT)
    return DataSource(
        name=folder.resolve().name,
        root=str(folder.resolve()),
        class_names=class_names,
        ignored=tuple(ignored),
        parts=matching,
    )


def _part_folders(folder: Path) -> dict[str, Path]:
    """The folders of the parts by part, or nothing where the sub-folders are classes."""
    parts: dict[str, Path] = {}
    others = []
    for sub in _subfolders(folder):
        part = part_called(sub.name)
        if part is None:
            others.append(sub)
        elif part in parts:
            raise InputError(f"{folder}: both {parts[part].name!r} and {sub.name!r}; expected one folder for {part}")
        else:
            parts[part] = sub
    if not parts or not _subfolders(parts.get("train") or next(iter(parts.values()))):
        return {}
    if "train" in parts and len(parts) > 1:
        return parts
    alone = not any(is_image_name(path.name) for other in others for path in visible_files(other))
    return parts if alone else {}


def _read_parts(root: Path, folders: dict[str, Path]) -> tuple[dict[str, FileImages], list[str]]:
    """The set of each part, with classes of its own, and the names of the files that are no images."""
    sets, ignored = {}, []
    for part, folder in folders.items():
        images, others = _read_classes(root, folder, empty_allowed=part in ("val", "test"))
        sets[part] = images
        ignored += others
    return sets, ignored


def _read_classes(root: Path, folder: Path, *, empty_allowed: bool) -> tuple[FileImages, list[str]]:
    classes: dict[str, list[str]] = {}
    ignored = []
    for sub in _subfolders(folder):
        names = [path.relative_to(root).as_posix() for path in visible_files(sub)]
        classes[sub.name] = [name for name in names if is_image_name(name.rpartition("/")[2])]
        ignored += [name for name in names if not is_image_name(name.rpartition("/")[2])]
    if not any(classes.values()):
        raise InputError(f"{folder}: {_what_is_there(folder, len(classes), ignored)}; expected {_LAYOUT}")
    empty = [name for name, names in classes.items() if not names]
    if empty and not empty_allowed:
        found = f" (only {listing(sorted({Path(name).suffix for name in ignored}))} files)" if ignored else ""
        raise InputError(
            f"{folder}: no image in class {listing(empty)}{found}; "
            f"expected at least one {', '.join(IMAGE_SUFFIXES[:4])}, ... in each class folder"
        )
    class_names = [name for name in classes if classes[name]]
    names = [name for label in class_names for name in classes[label]]
    targets = [target for target, label in enumerate(class_names) for _ in classes[label]]
    return FileImages(root, names, targets, class_names), ignored


def _what_is_there(folder: Path, classes: int, ignored: list[str]) -> str:
    loose = sum(is_image_name(path.name) for path in folder.iterdir())
    if loose:
        return f"{loose} images, but not in class folders"
    if ignored:
        return f"no image in {classes} folders (but files such as {ignored[0]})"
    return f"no image in {classes} folders" if classes else "an empty folder, or one with no class folders"


def _subfolders(folder: Path) -> list[Path]:
    """The visible sub-folders, sorted by name."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))


def visible_files(folder: Path, above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Every visible file below ``folder``, sorted; links to folders are followed, but never back to a folder above.

    A dangling link counts as a file, so that reading it says what is wrong.
    """
    here = os.path.realpath(folder)
    if here in above:
        return
    for path in sorted(folder.iterdir()):
        if is_hidden(path.name):
            continue
        try:
            path.name.encode()
        except UnicodeEncodeError:  # it could not be written into the run's files
            raise InputError(f"{folder}: {path.name!r} in it is no UTF-8; expected a name that is, rename it") from None
        if path.is_dir():
            yield from visible_files(path, above | {here})
        elif path.is_file() or path.is_symlink():
            yield path
