"""A folder of images: classes are sub-folders, splits are train/, val/ and test/."""

from pathlib import Path

from convit.data.image_sets import FileImages, listing
from convit.data.images import IMAGE_SUFFIXES, is_hidden, is_image_name, visible_files
from convit.data.sources.interface import Opening, Source, SourceKind, class_called, matched, path_of, split_called
from convit.errors import InputError
from convit.files import absolute

_LAYOUT = (
    "one sub-folder of images for each class (cat/1.jpg, dog/2.jpg), or such folders inside train/, val/ and test/"
)


def open_folder(folder: Path, *, min_classes: int = 2) -> Source:
    """The images of a folder, by class.

    ``folder/CLASS/**/IMAGE`` is one undivided set. ``folder/train/CLASS/**/IMAGE``, with ``val`` (also ``valid`` or
    ``validation``) and ``test`` beside it, are splits; upper or lower case does not matter. A folder called ``train``
    is a split if it has sub-folders itself, and another split stands beside it or no other folder holds images;
    otherwise it is a class. Names starting with a dot, ``Thumbs.db`` and ``__MACOSX`` are ignored.

    Classes are sorted by name. Where there is a train split its classes are the classes, and each split is matched to
    them by name.

    Raises :class:`InputError` for a folder without images or class folders, a class without an image (in val and test
    that is allowed), a class of val or test that train lacks, or fewer than ``min_classes`` classes.
    """
    try:
        splits = _split_folders(folder)
        sets, ignored = _read_splits(folder, splits or {"all": folder})
    except OSError as error:  # a folder that may not be listed
        raise InputError(f"{error.filename}: cannot be read ({error.strerror}); expected a folder of images") from error
    class_names, matching = matched(sets, min_classes=min_classes, where=str(folder), expected=_LAYOUT)
    return Source(
        name=absolute(folder).name,
        root=str(absolute(folder)),
        class_names=class_names,
        ignored=tuple(ignored),
        splits=matching,
    )


def _split_folders(folder: Path) -> dict[str, Path]:
    """Split -> its folder, or nothing where the sub-folders are classes."""
    splits: dict[str, Path] = {}
    others = []
    for sub in _subfolders(folder):
        split = split_called(sub.name)
        if split is None:
            others.append(sub)
        elif split in splits:
            raise InputError(f"{folder}: both {splits[split].name!r} and {sub.name!r}; expected one folder for {split}")
        else:
            splits[split] = sub
    if not splits or not _subfolders(splits.get("train") or next(iter(splits.values()))):
        return {}
    if "train" in splits and len(splits) > 1:
        return splits
    alone = not any(is_image_name(path.name) for other in others for path in visible_files(other))
    return splits if alone else {}


def _read_splits(root: Path, folders: dict[str, Path]) -> tuple[dict[str, FileImages], list[str]]:
    """The set of each split, with classes of its own, and the names of the files that are no images."""
    sets, ignored = {}, []
    for split, folder in folders.items():
        images, others = _read_classes(root, folder, empty_allowed=split in ("val", "test"))
        sets[split] = images
        ignored += others
    return sets, ignored


def _read_classes(root: Path, folder: Path, *, empty_allowed: bool) -> tuple[FileImages, list[str]]:
    classes: dict[str, list[str]] = {}
    ignored = []
    for sub in _subfolders(folder):
        names = [path.relative_to(root).as_posix() for path in visible_files(sub)]
        found = classes.setdefault(class_called(sub.name, folder), [])  # two forms of a name are one class
        found += [name for name in names if is_image_name(name.rpartition("/")[2])]
        ignored += [name for name in names if not is_image_name(name.rpartition("/")[2])]
    if not any(classes.values()):
        raise InputError(f"{folder}: {_what_is_there(folder, len(classes), ignored)}; expected {_LAYOUT}")
    empty = [name for name, names in classes.items() if not names]
    if empty and not empty_allowed:
        others = f" (only {listing(sorted({Path(name).suffix for name in ignored}))} files)" if ignored else ""
        raise InputError(
            f"{folder}: no image in class {listing(empty)}{others}; "
            f"expected at least one {', '.join(IMAGE_SUFFIXES[:4])}, ... in each class folder"
        )
    class_names = sorted(name for name in classes if classes[name])
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


def _takes(data: str) -> bool:
    return path_of(data).is_dir()


def _open(data: str, opening: Opening) -> Source:
    return open_folder(path_of(data), min_classes=opening.min_classes)


FOLDER = SourceKind(takes=_takes, open=_open, expected="a folder of images")
