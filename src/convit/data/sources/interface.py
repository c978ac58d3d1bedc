"""What a file of this folder gives, a :class:`SourceKind` that opens a :class:`Source`, and what helps to write one."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from convit.data.image_sets import ImageSet
from convit.errors import InputError
from convit.files import composed, printable


@dataclass(frozen=True, kw_only=True)
class Source:
    """Labelled images as they are found: official splits, or one set that nobody has divided yet."""

    name: str
    """A short name, such as the data set's or the folder's."""
    root: str
    """What opens it again from anywhere: an absolute path or pattern, or the data set's name."""
    class_names: tuple[str, ...]
    splits: Mapping[str, ImageSet]
    """Either ``all`` alone, or some of ``train``, ``val`` and ``test``; all with the same ``class_names``."""
    flip: bool = True
    """Whether a mirrored image still shows its class: not so for digits, letters and traffic signs."""
    ignored: tuple[str, ...] = ()
    """Files that were left aside because their names do not end like an image's."""
    notes: tuple[str, ...] = ()
    """What else was left aside, each in one line for the user."""

    def __post_init__(self) -> None:
        names = set(self.splits)
        assert names == {"all"} or (names and names <= {"train", "val", "test"})
        assert all(images.class_names == self.class_names for images in self.splits.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Opening:
    """What may be asked of a source while it is opened."""

    data_root: Path | None = None
    """Where data sets are downloaded to; None for the usual place."""
    download: bool = True
    """Whether to fetch a data set that is not there yet."""
    min_classes: int = 2
    """How few classes there may be; evaluation can do with 1."""
    missing: bool = False
    """Whether a list may name files that are not there; they are found as bad ones when they are read."""
    empty: bool = False
    """Whether a class folder may be empty: so when evaluating."""
    folders: Mapping[str, Path] = field(default_factory=dict)
    """Split -> its folder, of a folder of images whose splits were named; empty to find them by their names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceKind:
    """One kind of source: a line in the table of :mod:`convit.data.sources`."""

    takes: Callable[[str], bool]
    """Whether a word means such a source. The first line of the table that takes a word opens it."""
    open: Callable[[str, Opening], Source]
    """Raises :class:`convit.InputError`: one line that says what was found and what was expected."""
    expected: str = ""
    """How messages name it, such as ``a folder of images``."""
    names: tuple[str, ...] = ()
    """The words that it takes, where they are names of data sets."""


def path_of(data: str) -> Path:
    """The path that a word is, with ``~`` for the home folder; of somebody unknown it stands for itself."""
    try:
        return Path(data).expanduser()
    except RuntimeError:
        return Path(data)


def matched(
    sets: Mapping[str, ImageSet], *, min_classes: int, where: str, expected: str
) -> tuple[tuple[str, ...], dict[str, ImageSet]]:
    """The classes of a source, and its splits with targets into them, matched by name.

    The classes are those of the train split, or of the undivided set; where there is neither, those of all splits.

    Args:
        sets: split -> images, each with class names of its own.
        min_classes: how few classes there may be.
        where, expected: the beginning and the end of the message if there are fewer.

    Raises:
        InputError: fewer classes, or one of val or test that train lacks.
    """
    leads = [sets[split] for split in ("train", "all") if split in sets]
    class_names = leads[0].class_names if leads else class_order(c for s in sets.values() for c in s.class_names)
    if len(class_names) < min_classes:
        found = f"only one class, {class_names[0]!r}" if len(class_names) == 1 else f"{len(class_names)} classes"
        raise InputError(f"{where}: {found}; expected at least {min_classes}: {expected}")
    return class_names, {split: images.with_classes(class_names) for split, images in sets.items()}


def scaled(source: Source, full_scale: float | None) -> Source:
    """The source with this ``full_scale`` for all its images."""
    return replace(source, splits={split: images.scaled(full_scale) for split, images in source.splits.items()})


_SPLITS = {
    **dict.fromkeys(("train", "training", "trn", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "devel", "eval", "evaluation"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
_FILLERS = ("", "set", "data", "dataset", "images", "image", "imgs", "img", "split", "folder", "dir", "seg")
"""Words that may stand beside a split's name, or be joined to its end, and say nothing."""
_UNLABELLED = ("unlabeled", "unlabelled", "unknown", "unclassified", "pred", "predict", "prediction")


def split_called(word: str) -> str | None:
    """The split that a folder or shard of this name holds, in upper or lower case; None if it is no split's name.

    >>> split_called("Validation"), split_called("seg_train"), split_called("testset"), split_called("train station")
    ('val', 'train', 'test', None)
    """
    told = [word for word in _words(word) if word not in _FILLERS]
    return _SPLITS.get(told[0]) if len(told) == 1 else None


def splits_in(word: str) -> set[str]:
    """The splits that any of the words of a name means.

    >>> splits_in("fold1_train"), splits_in("cat")
    ({'train'}, set())
    """
    return {_SPLITS[word] for word in _words(word) if word in _SPLITS}


def is_unlabelled(word: str) -> bool:
    """Whether a folder's name tells no class, but that there are images, or images without labels.

    >>> is_unlabelled("Unlabeled"), is_unlabelled("seg_pred"), is_unlabelled("images"), is_unlabelled("7")
    (True, True, True, False)
    """
    words = [word for word in _words(word) if word]
    return bool(words) and all(word in _FILLERS or word in _UNLABELLED for word in words)


def _words(name: str) -> list[str]:
    """The words of a name in lower case, without what is joined to the end of a split's name."""
    words = re.split(r"[\W\d_]+", name.lower())
    return [next((word.removesuffix(f) for f in _FILLERS if word.removesuffix(f) in _SPLITS), word) for word in words]


def class_order(names: Iterable[str]) -> tuple[str, ...]:
    """Each name once, sorted; by value if all are whole numbers.

    >>> class_order(["dog", "cat", "dog"]), class_order(["10", "9"])
    (('cat', 'dog'), ('9', '10'))
    """
    known = set(names)
    numbers = all(len(name) < 19 and name.isascii() and name.isdecimal() for name in known)
    return tuple(sorted(known, key=lambda name: (int(name) if numbers else 0, name)))


def class_called(name: str, where: object) -> str:
    """The class that a folder or label of this name means: the same for both Unicode forms of a name.

    Args:
        name: of the folder, or the label.
        where: for the message.

    Raises:
        InputError: no UTF-8: a model's files name its classes, on any machine.
    """
    try:
        return composed(name.encode().decode())
    except UnicodeEncodeError:
        raise InputError(
            f"{where}: the class {printable(name)} is no UTF-8; expected a name that is: rename it"
        ) from None


def is_one_line(text: str) -> bool:
    """Whether a name can be shown in a line and written as UTF-8: no line ends, controls or halves of characters.

    >>> is_one_line("Ünï 1.jpg"), is_one_line("a\\nb")
    (True, False)
    """
    return text.isprintable() or not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text)
