"""Where labelled images come from: one file for each kind of source, one line for each in the table.

A new kind is a file here that gives a :class:`SourceKind`, and its line in ``SOURCES``.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from convit.data.sources.digits import DIGITS
from convit.data.sources.folder import FOLDER
from convit.data.sources.hub import HUB
from convit.data.sources.interface import Opening, Source, SourceKind, path_of, scaled
from convit.data.sources.layout import split_folder
from convit.data.sources.shards import SHARDS
from convit.data.sources.table import SUFFIXES, TABLE
from convit.data.sources.torchvision import TORCHVISION
from convit.errors import InputError, brief, listing, nearest
from convit.files import kind_of

SOURCES: tuple[SourceKind, ...] = (
    DIGITS,
    TORCHVISION,
    HUB,
    SHARDS,
    TABLE,
    FOLDER,  # the last: it takes every folder that the others leave
)

SOURCE_NAMES = tuple(name for kind in SOURCES for name in kind.names)

__all__ = ["SOURCES", "SOURCE_NAMES", "Opening", "Source", "SourceKind", "kind_of_source", "open_source", "scaled"]


def kind_of_source(data: str, folders: Mapping[str, Path] | None = None) -> SourceKind:
    """The line of the table that opens a word. Nothing is opened: a word that means nothing is refused at once.

    Args:
        data: as for :func:`open_source`.
        folders: split -> its folder, where they were named.

    Raises:
        InputError: no such folder, list or data set; or no such folder of a split.
    """
    if folders and not FOLDER.takes(data):
        raise InputError(f"{min(folders)}: got a split folder for {data!r}, expected DATA to be a folder")
    with _listed(data):
        for split, folder in (folders or {}).items():
            split_folder(path_of(data), split, folder)
        for kind in SOURCES if not folders else (FOLDER,):
            if data.strip() and kind.takes(data):
                return kind
        if data.strip() and path_of(data).exists():
            raise InputError(f"{data}: {kind_of(path_of(data))}; expected {_expected()}, or the name of a data set")
    if data.strip() and path_of(data).is_symlink():
        raise InputError(f"{data}: a link to what is not there; expected {_expected()}, or the name of a data set")
    raise InputError(
        f"{data!r}: no such folder or data set{_nearest(data)}; "
        f"expected {_expected()}, or one of {listing(SOURCE_NAMES, most=len(SOURCE_NAMES))}"
    )


def _expected() -> str:
    return ", ".join(kind.expected for kind in reversed(SOURCES) if kind.expected)


@contextmanager
def _listed(data: str) -> Iterator[None]:
    """Within it a folder that may not be listed is refused in one line."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{error.filename or data}: cannot be read ({error.strerror}); expected {_expected()}"
        ) from error


def open_source(
    data: str,
    *,
    data_root: Path | None = None,
    download: bool = True,
    min_classes: int = 2,
    missing: bool = False,
    empty: bool = False,
    folders: Mapping[str, Path] | None = None,
) -> Source:
    """Open labelled images by path or by name. To learn from them or to evaluate, see :func:`convit.data.select`.

    A known name means that data set even where a folder of the same name lies beside, which a note says: ``./digits``
    is the folder.

    Args:
        data: one of ``SOURCE_NAMES``; a data set of the Hub, ``hf:owner/name``, or a folder that ``save_to_disk`` of
            its library wrote (:func:`convit.data.sources.hub.open_hub`); WebDataset shards, as a file, folder
            or pattern (:func:`convit.data.sources.shards.open_shards`); a list of images
            (:func:`convit.data.sources.table.open_table`); or a folder of images
            (:func:`convit.data.sources.folder.open_folder`).
        data_root: where data sets are downloaded to; by default ``$CONVIT_DATA``, or else ``~/.cache/convit/data``, and
            for the Hub's where its library keeps them.
        download: fetch a data set of torchvision that is not there yet.
        min_classes: how few classes there may be; evaluation can do with 1.
        missing: whether a list may name files that are not there; they are found as bad ones when they are read.
        empty: whether a class folder may be empty.
        folders: split -> its folder, of a folder of images whose splits were named.

    Raises:
        InputError: one line that names the file, class or data set, what was found and what was expected.

    >>> source = open_source("digits")
    >>> len(source.splits["train"]), len(source.splits["test"]), source.class_names[:3]
    (1438, 359, ('0', '1', '2'))
    """
    opening = Opening(
        data_root=data_root,
        download=download,
        min_classes=min_classes,
        missing=missing,
        empty=empty,
        folders=folders or {},
    )
    kind = kind_of_source(data, opening.folders)
    with _listed(data):
        if kind.names:
            return _by_name(kind, data, opening)
        source = kind.open(data, opening)
    return replace(source, notes=(*source.notes, *_said_of_case(source.class_names)))


def _said_of_case(class_names: Iterable[str]) -> list[str]:
    """A line if two classes have one name but for upper and lower case or blanks: many a list mixes them. Single
    letters are left alone.

    >>> _said_of_case(["Cat", "cat", "dog"])
    ["classes 'Cat' and 'cat' differ in upper and lower case or blanks alone: if they are one, give them one name"]
    """
    names: dict[str, str] = {}
    for name in (name for name in class_names if len(name) > 1):
        other = names.setdefault(" ".join(name.casefold().split()), name)
        if other != name:
            why = "differ in upper and lower case or blanks alone: if they are one, give them one name"
            return [f"classes {brief(other)} and {brief(name)} {why}"]
    return []


def _by_name(kind: SourceKind, name: str, opening: Opening) -> Source:
    """The data set of a name, with a word on the folder that is called so too."""
    if not Path(name).is_dir():
        return kind.open(name, opening)
    note = f"for the folder {name} here say ./{name}"
    try:
        source = kind.open(name, opening)
    except InputError as error:
        raise InputError(f"{error}; {note}") from error
    return replace(source, notes=(*source.notes, f"{name} is the data set of that name; {note}"))


def _nearest(data: str) -> str:
    """The hint for a misspelt name, folder or list."""
    parent = path_of(data).parent
    try:
        beside = [entry for entry in parent.iterdir() if entry.is_dir() or entry.suffix.lower() in SUFFIXES]
    except (OSError, ValueError):
        beside = []
    return nearest(data, [*SOURCE_NAMES, *map(str, beside)])
