"""Which folders below DATA are splits and which are classes; refuses a folder that can be read in two ways.

Names of splits are those of :func:`convit.data.sources.interface.split_called`. The options ``--train DIR --val DIR
--test DIR`` name the split folders where their names do not tell.
"""

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from convit.data.images import is_folder, is_hidden, is_image_name, visible_files
from convit.data.sources.interface import is_unlabelled, split_called, splits_in
from convit.errors import InputError, counted, listing
from convit.files import absolute

ANNOTATIONS = "*_annotations.txt"
"""Labels of the images in a folder ``images`` beside it, as in Tiny ImageNet's val."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Where the class folders are."""

    splits: Mapping[str, Path]
    """Split -> the folder that has its class folders in it; ``all`` alone if nothing is divided."""
    notes: tuple[str, ...] = ()
    """What was left out, and what could have been meant, each in one line."""


def find_layout(root: Path) -> Layout:
    """The splits of a folder by the names of its sub-folders; none if those are classes.

    A folder called ``train`` is a split if there are class folders in it, and another split or unlabelled images are
    beside it or no other folder holds images; otherwise it is a class. Other splits need no train split if no other
    folder holds images.

    Raises:
        InputError: two folders for one split, or folders that look like two splits and cannot be read as such; and
            a folder whose sub-folders are data sets.
    """
    if (found := _splits_of(root)) is not None:
        return found
    only = _only_folder(root)
    if only is not None and (found := _splits_of(only)) is not None:
        return found
    _refuse_look_alikes(root)
    return Layout(splits={"all": root}, notes=tuple(_doubts(root)))


def named_layout(root: Path, folders: Mapping[str, Path]) -> Layout:
    """The splits that were named: split -> folder, each as :func:`split_folder` reads it.

    Raises:
        InputError: no such folder, or one for two splits.
    """
    splits: dict[str, Path] = {}
    for split, folder in folders.items():
        place = inner(root / split_folder(root, split, folder))
        if twice := [other for other, known in splits.items() if absolute(known) == absolute(place)]:
            raise InputError(f"{twice[0]} and {split}: got {folder} for both, expected a folder for each")
        splits[split] = place
    return Layout(splits=splits)


def split_folder(root: Path, split: str, folder: Path) -> Path:
    """A split folder relative to ``root``, the folder DATA: given relative to it, or to the working directory, or
    absolute. ``.`` is DATA itself, ``../other`` is beside it.

    Raises:
        InputError: no such folder.
    """
    if not folder.is_absolute() and (root / folder).is_dir():
        return Path(os.path.normpath(folder))
    if folder.is_dir():
        return Path(os.path.relpath(absolute(folder), absolute(root)))
    there = listing(sub.name for sub in subfolders(root)) or "none"
    raise InputError(f"{split}: no folder {str(folder)!r} in {root}; expected one of those in it ({there}), or a path")


def inner(folder: Path) -> Path:
    """The folder itself, or the one in it that has all of its content and its name again: ``seg_train/seg_train``."""
    only = _only_folder(folder)
    split = split_called(folder.name)
    if only is not None and (only.name == folder.name or (split is not None and split_called(only.name) == split)):
        return inner(only)
    return folder


def subfolders(folder: Path) -> list[Path]:
    """The visible sub-folders, sorted by name."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if is_folder(entry) and not is_hidden(entry.name)]
    return sorted(folder / name for name in names)


def holds_image(folder: Path) -> bool:
    """Whether there is an image at any depth."""
    return any(is_image_name(path.name) for path in visible_files(folder))


def loose_images(folder: Path) -> list[str]:
    """The images in the folder itself, in no class folder."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not is_folder(entry) and is_image_name(entry.name))


def annotations(folder: Path) -> Path | None:
    """The file of labels in a folder like Tiny ImageNet's val, if it is one."""
    found = sorted(path for path in folder.glob(ANNOTATIONS) if not is_hidden(path.name))
    return found[0] if found and (folder / "images").is_dir() else None


def wrong_level(folder: Path) -> str:
    """The hint for a folder that has no class folders in it: another folder, or a list beside it; or nothing."""
    return right_level(folder) or _list_beside(folder)


def right_level(folder: Path) -> str:
    """The hint which folder, above or below, has the class folders in it; nothing if none of them has."""
    below = folder
    while (only := _only_folder(below)) is not None:
        below = only
        if _is_data(below):
            return f"; did you mean {below}?"
    here = absolute(folder)
    if folder.is_dir() and loose_images(folder) and not subfolders(folder):
        above = [*([here.parent.parent] if split_called(here.parent.name) else []), here.parent]
        return next((f"; did you mean {place}?" for place in above if _is_data(place)), "")
    return ""


def splits_beside(folder: Path) -> Iterator[str]:
    """What is said where the train split alone is DATA, and others are beside it."""
    if not folder.is_dir() or split_called(folder.name) != "train":
        return
    try:
        others = [split for split in _labelled(folder.parent) if split != "train"]
    except (OSError, InputError):  # what lies beside is none of our business
        return
    if others:
        yield f"not used: {' and '.join(others)} beside {folder.name}; {folder.parent} as DATA takes all in"


def _list_beside(folder: Path) -> str:
    """The hint for a folder with a list of labels in it or beside it."""
    places = [path for place in (folder, absolute(folder).parent) for path in sorted(place.glob("*.csv"))]
    return f"; or a list of path and label: is {places[0]} one?" if places else ""


def _is_data(folder: Path) -> bool:
    """Whether the folder has splits, or two class folders with images right in them; not if it cannot be read."""
    try:
        labels = (sub for sub in subfolders(folder) if split_called(sub.name) is None and os.access(sub, os.R_OK))
        with_images = (sub for sub in labels if loose_images(sub))
        return len(list(islice(with_images, 2))) == 2 or not {"train", "test"}.isdisjoint(_labelled(folder))
    except (OSError, InputError):
        return False


def _only_folder(folder: Path) -> Path | None:
    """The one folder in a folder that has no image beside it."""
    inside = subfolders(folder)
    return inside[0] if len(inside) == 1 and not loose_images(folder) else None


def _is_labelled(folder: Path, known: Collection[str] = ()) -> bool:
    """Whether there are class folders with images in a split folder: those that are ``known`` for classes, or that are
    called like one."""
    labels = (sub for sub in subfolders(folder) if sub.name in known or not is_unlabelled(sub.name))
    return annotations(folder) is not None or any(map(holds_image, labels))


def _named(folder: Path) -> dict[str, list[Path]]:
    """Split -> the sub-folders that are called so."""
    named: dict[str, list[Path]] = {}
    for sub in subfolders(folder):
        if split := split_called(sub.name):
            named.setdefault(split, []).append(sub)
    return named


def _labelled(root: Path) -> dict[str, list[Path]]:
    """The same of those that have class folders with images in them."""
    named = _named(root)
    known = {sub.name for folder in named.get("train", ()) for sub in subfolders(inner(folder))}
    labelled = {split: [f for f in folders if _is_labelled(inner(f), known)] for split, folders in named.items()}
    if not any(_is_labelled(inner(folder)) for folder in labelled.get("train", ())):
        labelled.pop("train", None)  # its folders are classes only if one of them is called so
    return {split: folders for split, folders in labelled.items() if folders}


def _splits_of(root: Path) -> Layout | None:
    """The splits by the names of the sub-folders, as :func:`find_layout` tells; None if there are none."""
    named, labelled = _named(root), _labelled(root)
    if not labelled:
        return None
    others = [sub for sub in subfolders(root) if split_called(sub.name) is None and holds_image(sub)]
    classes = [sub for sub in others if not is_unlabelled(sub.name)]
    if "train" in labelled:
        if classes and len(named) == 1 and len(classes) == len(others):
            return None
    elif classes or "train" in named:
        return None
    for split, folders in labelled.items():
        if len(folders) > 1:
            names = " and ".join(repr(folder.name) for folder in folders[:2])
            raise InputError(
                f"{root}: both {names}; expected one folder for {split}: rename one, or name it to "
                f"'convit train' by --{split} DIR"
            )
    splits = {split: inner(folders[0]) for split, folders in labelled.items()}
    aside = [folder for split, folders in named.items() for folder in folders if folder not in labelled.get(split, ())]
    return Layout(splits=splits, notes=tuple(_left_out(root, aside, others)))


def _left_out(root: Path, aside: list[Path], others: list[Path]) -> Iterator[str]:
    """What is said of folders that are no splits: those called so without class folders, and others with images."""
    for folder in aside + [other for other in others if is_unlabelled(other.name)]:
        images = sum(is_image_name(path.name) for path in visible_files(folder))
        have = f"its {images} images have no labels: 'convit predict' answers for them" if images else "no image in it"
        yield f"left out {folder.name}: {have}"
    if classes := [folder.name for folder in others if not is_unlabelled(folder.name)]:
        names = listing(classes, most=3)
        yield f"left out folders that are called neither train, val nor test: {names}"
    if loose := loose_images(root):
        yield loose_note(root, loose)


def loose_note(folder: Path, names: list[str]) -> str:
    """What is said of images beside the class folders."""
    count, where = len(names), absolute(folder).name
    return f"left out {counted(count, 'image')} beside the folders in {where}, such as {names[0]}: no class"


def _refuse_look_alikes(root: Path) -> None:
    """Raises :class:`InputError` where classes would be splits, or data sets of their own."""
    named, subs = _named(root), subfolders(root)
    alike = [sub for sub in subs if splits_in(sub.name)]
    told = {min(splits_in(sub.name)): sub for sub in reversed(alike)}
    if len(named) < 2 and not ((named or len(told) > 1) and _same_inside(subs if named else alike)):
        for sub in subs:
            if (found := _splits_of(sub)) is not None and len(found.splits) > 1:
                raise InputError(f"{root}: folder {sub.name!r} holds splits, not a class; did you mean {sub}?")
        return
    first = [folders[0] for folders in named.values()] if len(named) > 1 else alike
    if not any(holds_image(sub) for sub in first):
        return  # whoever reads them says so
    folders = {"train": "DIR", **{split: sub.name for split, sub in told.items()}}
    words = " ".join(f"--{split} {name}" for split, name in folders.items())
    flat = next((sub for sub in first if not _is_labelled(inner(sub))), None)
    why, say = (f", but the images in {flat.name!r} are in no class folders", "") if flat else ("", f"{words}, or ")
    raise InputError(
        f"{root}: folders {listing(sub.name for sub in first)} look like splits, not classes{why}; expected class "
        f"folders in each, or a list of path, label and split{_list_beside(root)}; or say what they are: {say}"
        "--train . if they are classes"
    )


def _same_inside(folders: list[Path]) -> bool:
    """Whether two of the folders have a folder of the same name, with images, in them."""
    seen: set[str] = set()
    for folder in folders:
        names = {sub.name for sub in subfolders(folder) if holds_image(sub)}
        if seen & names:
            return True
        seen |= names
    return False


def _doubts(root: Path) -> Iterator[str]:
    """What else could have been meant where folders are taken for classes."""
    for sub in subfolders(root):
        if split_called(sub.name) == "train" and _is_labelled(inner(sub)):
            yield f"{sub.name!r} is taken for a class; if it is a split: --train {sub.name}"
    labels = subfolders(root)
    inside = [[sub.name for sub in subfolders(label)] for label in labels]
    divided = [
        label for label, names in zip(labels, inside, strict=True) if len(set(map(split_called, names)) - {None}) > 1
    ]
    alike = labels if len(labels) > 1 and len(inside[0]) > 1 and all(names == inside[0] for names in inside) else []
    if found := divided or alike:
        names = inside[labels.index(found[0])]
        yield (
            f"the class folders {listing((label.name for label in found), most=3)} have the "
            f"{'splits' if divided else 'folders'} {listing(names, most=3)} in them, which are taken together; if that "
            "is wrong, make a list of path, label and split (a .csv file)"
        )
    with os.scandir(root) as entries:
        gone = sorted(entry.name for entry in entries if entry.is_symlink() and not os.path.exists(entry.path))
    if gone := [name for name in gone if not is_hidden(name) and not is_image_name(name)]:
        yield f"left out {listing(gone, most=3)}: a link to something that is not there; is a disk missing?"
