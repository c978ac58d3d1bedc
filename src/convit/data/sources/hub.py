"""Data sets of the Hugging Face Hub, and those saved with ``save_to_disk``.

The ``datasets`` library is imported only when one is opened. It runs no code of a data set (since its version 4), and
its tables stay on disk: an image is decoded when it is read.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from convit.data.decoding import UnreadableImageError
from convit.data.image_sets import EncodedImages
from convit.data.sources.interface import (
    Opening,
    Source,
    SourceKind,
    class_order,
    is_one_line,
    matched,
    path_of,
    split_called,
)
from convit.errors import InputError, listing
from convit.files import absolute, composed, read

PREFIX = "hf:"

_FORM = "hf:owner/name, where @revision, :config, :image=COLUMN and :label=COLUMN may follow"
_LABELS = ("label", "labels", "class", "target", "cls")
_PLAIN = ("train", "val", "valid", "validation", "test")
"""Names of splits that go before others for the same."""
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True)
class _Word:
    """``hf:owner/name@revision:config:image=COLUMN:label=COLUMN`` in its pieces."""

    repo: str
    revision: str | None = None
    config: str | None = None
    image: str | None = None
    label: str | None = None

    @classmethod
    def parse(cls, data: str) -> Self:
        """The pieces of a word. Raises :class:`InputError` for one of another form."""
        from convit import hub

        address, *pieces = data.removeprefix(PREFIX).split(":")
        repo, at, revision = address.partition("@")
        found: dict[str, str] = {"revision": revision} if at else {}
        for piece in pieces:
            option, equals, value = piece.partition("=")
            key, value = (option, value) if equals else ("config", piece)
            if key not in ("config", "image", "label") or key in found:
                raise InputError(f"{data}: got {piece!r}, expected {_FORM}")
            found[key] = value
        if not hub.is_repo_id(repo) or not all(found.values()):
            raise InputError(f"{data}: expected {_FORM}")
        return cls(repo=repo, **found)

    def pinned(self, commit: str | None) -> str:
        """The word again, with the Hub's commit in place of a branch or of nothing."""
        revision = commit or self.revision
        columns = (f"{key}={value}" for key, value in (("image", self.image), ("label", self.label)) if value)
        pieces = [self.repo + (f"@{revision}" if revision else ""), *filter(None, [self.config]), *columns]
        return PREFIX + ":".join(pieces)


class HubImages(EncodedImages):
    """Images in a column of a ``datasets.Dataset``, given undecoded; image ``i`` is in row ``rows[i]``."""

    of_each = ("rows",)

    def __init__(
        self,
        dataset: Any,
        title: str,
        rows: NDArray[np.int64],
        names: list[str],
        targets: ArrayLike,
        class_names: tuple[str, ...],
    ) -> None:
        super().__init__(names, targets, class_names)
        assert rows.shape == (len(self),)
        self.dataset = dataset
        self.title = title
        self.rows = rows

    def encoded(self, index: int) -> bytes:
        (cell,) = self.dataset[int(self.rows[index])].values()
        if cell is None:
            raise UnreadableImageError(f"{self.where(index)}: no image in this row; expected one")
        if cell["bytes"] is not None:
            return bytes(cell["bytes"])
        try:
            return read(Path(cell["path"]))
        except (OSError, TypeError) as error:
            raise UnreadableImageError(f"{self.where(index)}: {cell['path']!r} cannot be read ({error})") from error

    def where(self, index: int) -> str:
        return f"{self.title}[{self.rows[index]}]"


def open_hub(data: str, opening: Opening) -> Source:
    """A data set of the Hugging Face Hub: ``hf:owner/name``, downloaded once.

    ``hf:owner/name@revision:config:image=COLUMN:label=COLUMN`` says more, where it is needed: a branch, tag or commit;
    which of several data sets in one repository; which columns. Otherwise the image column is the one of the type
    Image, the label column the one of the type ClassLabel, or else one of text or whole numbers that is called label,
    labels, class, target or cls. Splits called train, val (valid, validation) and test are the splits; others are left
    aside, and so is a split without labels. Classes are those of the train split, in the order of ClassLabel or sorted.

    The source's root names the commit that was loaded, so that a run repeats on the same images. Downloads are kept
    where ``datasets`` keeps them, unless the opening names a folder.

    Raises:
        InputError: no ``datasets`` library, network, data set or config; columns that are not there or could be
            several; a row without a label; a class of val or test that train lacks; too few classes.
    """
    from convit import hub

    word = _Word.parse(data)
    datasets = _library(data)
    if Path(word.repo).exists():  # the library would take the folder
        raise InputError(f"{data}: {word.repo} is a folder here too; expected another working folder, or ./{word.repo}")
    what, instead = f"{data}: not loaded from the Hugging Face Hub", "a data set that can be reached"
    with hub.hub_faults(what, instead):
        try:
            loaded = datasets.load_dataset(
                word.repo,
                word.config,
                revision=word.revision,
                cache_dir=str(opening.data_root) if opening.data_root else None,
            )
        except datasets.exceptions.DatasetNotFoundError as error:
            reason = "no such data set, or one that the token does not open"
            raise InputError(f"{what} ({reason}); expected {instead}") from error
        except datasets.exceptions.DatasetsError as error:
            raise InputError(f"{what} ({_detail(error.__cause__ or error)}); expected {instead}") from error
    commit = _commit(loaded)
    if word.revision and _COMMIT.fullmatch(word.revision) and commit not in (None, word.revision):
        raise InputError(
            f"{data}: only the commit {commit} is in the cache of downloads; expected a network connection"
        )
    title = "/".join(filter(None, [word.repo, word.config]))
    name = "-".join(filter(None, [word.repo.partition("/")[2], word.config]))
    return _source(loaded, word, name=name, root=word.pinned(commit), shown=data, title=title, opening=opening)


def is_saved(folder: Path) -> bool:
    """Whether ``save_to_disk`` of the ``datasets`` library wrote this folder."""
    return (folder / "dataset_dict.json").is_file() or all(
        (folder / name).is_file() for name in ("dataset_info.json", "state.json")
    )


def open_saved(data: str, opening: Opening) -> Source:
    """A data set that ``save_to_disk`` of the ``datasets`` library wrote: with its splits, or one undivided set.

    Columns, splits and classes are found, and errors raised, as by :func:`open_hub`.
    """
    folder = path_of(data)
    datasets = _library(str(folder))
    try:
        loaded = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, datasets.exceptions.DatasetsError) as error:
        raise InputError(f"{folder}: {_detail(error)}; expected a folder that save_to_disk wrote") from error
    name, root = absolute(folder).name, str(absolute(folder))
    return _source(loaded, _Word(repo=str(folder)), name=name, root=root, shown=root, title=name, opening=opening)


def _library(data: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            f"{data}: the library 'datasets' is not installed; expected it (pip install 'convit[hub]')"
        ) from error
    return datasets


def _detail(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _commit(loaded: Any) -> str | None:
    """The Hub's commit, by which the library calls the folder of its cache; None if that is not to be seen."""
    splits = loaded.values() if isinstance(loaded, Mapping) else [loaded]
    folders = {Path(file["filename"]).parent.name for split in splits for file in split.cache_files}
    commits = [folder for folder in folders if _COMMIT.fullmatch(folder)]
    return commits[0] if len(commits) == len(folders) == 1 else None


def _source(loaded: Any, word: _Word, *, name: str, root: str, shown: str, title: str, opening: Opening) -> Source:
    """The source of what the library loaded. shown: what messages call it; title: what image names begin with."""
    found, notes = _splits(loaded, shown)
    sets = {}
    for split, (called, dataset) in found.items():
        images = _images(dataset, word, f"{shown} {called}".strip(), "/".join(filter(None, [title, called])))
        if images is None:
            notes.append(f"{shown}: the split {called!r} is left aside: it has no row with a label")
        else:
            sets[split] = images
    class_names, matching = matched(sets, min_classes=opening.min_classes, where=shown, expected="two labels")
    return Source(name=name, root=root, class_names=class_names, splits=matching, notes=tuple(notes))


def _splits(loaded: Any, shown: str) -> tuple[dict[str, tuple[str, Any]], list[str]]:
    """Split -> what it is called there and its rows, and what is to be said of those that are left aside."""
    if not isinstance(loaded, Mapping):
        return {"all": ("", loaded)}, []
    if len(loaded) == 1 and split_called(next(iter(loaded))) is None:
        return {"all": next(iter(loaded.items()))}, []
    splits: dict[str, tuple[str, Any]] = {}
    notes = []
    for called, dataset in sorted(loaded.items(), key=lambda item: item[0] not in _PLAIN):
        split = split_called(called)
        if split is None:
            notes.append(
                f"{shown}: the split {called!r} is left aside: it is called neither train, validation nor test"
            )
        elif split in splits and called not in _PLAIN:
            notes.append(f"{shown}: the split {called!r} is left aside: {splits[split][0]!r} is the one for {split}")
        elif split in splits:
            raise InputError(f"{shown}: both {splits[split][0]!r} and {called!r}; expected one split for {split}")
        else:
            splits[split] = (called, dataset)
    if not splits:
        raise InputError(f"{shown}: splits {listing(loaded)}; expected train, validation or test, or a single one")
    return splits, notes


def _images(dataset: Any, word: _Word, title: str, prefix: str) -> HubImages | None:
    """The images of one split, with classes of their own; None if no row has a label."""
    from datasets import ClassLabel, Image

    image, label = _columns(dataset.features, word, title)
    feature = dataset.features[label]
    column = dataset.select_columns([label]).with_format("arrow")[:].column(label).to_pylist()
    hidden = [value is None or value == -1 for value in column]  # -1 is the Hub's word for a label kept secret
    if all(hidden):
        return None
    if any(hidden):
        raise InputError(f"{title}[{hidden.index(True)}]: no label; expected one in each row, or in none of a split")
    words = [composed(name) for name in feature.names] if isinstance(feature, ClassLabel) else []
    labels = [words[value] if words else composed(str(value).strip()) for value in column]
    used = set(labels)
    for name in used:
        if not name or not is_one_line(name):
            raise InputError(
                f"{title}[{labels.index(name)}]: label {name!r}; expected the name of a class, in one line"
            )
    listed = words or class_order(used)
    class_names = tuple(name for name in listed if name in used)  # nothing is learned of a class without an image
    position = {name: i for i, name in enumerate(class_names)}
    return HubImages(
        dataset.with_format(None).select_columns([image]).cast_column(image, Image(decode=False)),
        title,
        np.arange(len(labels)),
        [f"{prefix}/{row:06d}" for row in range(len(labels))],
        [position[name] for name in labels],
        class_names,
    )


def _columns(features: Mapping[str, Any], word: _Word, title: str) -> tuple[str, str]:
    """Which column has the images, and which the labels."""
    from datasets import ClassLabel, Image, Value

    def plain(name: str) -> bool:
        feature = features[name]
        return isinstance(feature, Value) and re.fullmatch(r"(large_)?string|u?int\d+", feature.dtype) is not None

    images = [name for name, feature in features.items() if isinstance(feature, Image)]
    classes = [name for name, feature in features.items() if isinstance(feature, ClassLabel)]
    plain_ones = [name for name in features if plain(name)]
    labels = classes or [name for name in plain_ones if name.lower() in _LABELS]
    found = []
    for role, given, likely, possible, kind in (
        ("image", word.image, images, images, "of the type Image"),
        ("label", word.label, labels, [*classes, *plain_ones], "of the type ClassLabel, or called label"),
    ):
        chosen = [name for name in possible if name == given] if given else likely
        if len(chosen) != 1:
            types = [f.dtype if isinstance(f, Value) else type(f).__name__ for f in features.values()]
            there = ", ".join(f"{name} ({kind})" for name, kind in zip(features, types, strict=True))
            count = f"no column {given!r} of {role}s" if given else f"{len(likely)} columns that could be the {role}"
            raise InputError(
                f"{title}: {count}, of {there}; expected one {kind}, or on the Hub one chosen with :{role}=COLUMN"
            )
        found.append(chosen[0])
    return found[0], found[1]


HUB = SourceKind(
    takes=lambda data: data.startswith(PREFIX) or is_saved(path_of(data)),
    open=lambda data, opening: (open_hub if data.startswith(PREFIX) else open_saved)(data, opening),
    expected="'hf:owner/name'",
)
