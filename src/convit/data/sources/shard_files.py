"""Which .tar files a word names, and which split each of them holds."""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from convit.data.images import is_hidden, is_image_name, visible_files
from convit.data.sources.interface import path_of, split_called
from convit.errors import InputError
from convit.files import kind_of

CLASS_FILES = ("classes.txt", "classnames.txt")
LAYOUT = ".tar shards of images, KEY.jpg, each with its label in KEY.cls, KEY.json or KEY.txt"

_MOST_SHARDS = 100_000
_COMPRESSED = re.compile(r"\.(tgz|tbz2?|txz|tar\.\w+)$", re.IGNORECASE)
_RANGE = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")
_CHOICE = re.compile(r"\{([^{}]*,[^{}]*)\}")


def is_shard_pattern(data: str) -> bool:
    """Whether a word that is no file or folder is a pattern of .tar files."""
    return any(mark in data for mark in "{*?[") and (data.lower().endswith(".tar") or _is_compressed(data))


def is_shard(path: Path) -> bool:
    """Whether a file is a .tar file by its name, compressed ones included."""
    return not is_hidden(path.name) and (path.suffix.lower() == ".tar" or _is_compressed(path.name))


def holds_shards(folder: Path) -> bool:
    """Whether a folder is one of shards: .tar files in it, or in its train, val or test, and no folders of images."""
    return bool(_in_folder(folder)) and not any(
        is_image_name(file.name) for sub in _visible(folder) if sub.is_dir() for file in visible_files(sub)
    )


def find_shards(data: str) -> tuple[Path, list[str]]:
    """The folder that holds the shards, and their paths below it with forward slashes, sorted.

    Args:
        data: a .tar file, a folder that :func:`holds_shards`, or a pattern: ``{000..003}`` counts, ``{a,b}`` chooses,
            ``*``, ``?`` and ``[0-9]`` match as in a shell.

    Raises:
        InputError: there is no such file, or one is compressed.
    """
    path = path_of(data)
    if path.is_dir():
        root, files = path, _in_folder(path)
    else:
        files = [path] if path.exists() else _matching(str(path))
        root = Path(os.path.commonpath([file.parent for file in files]))
    for file in files:
        if _is_compressed(file.name):
            raise InputError(f"{file}: compressed; expected a plain .tar file, in which images are read by their place")
        if file.suffix.lower() != ".tar" or not file.is_file():
            raise InputError(f"{file}: {kind_of(file)}, no .tar file; expected {LAYOUT}")
    return root, sorted({file.relative_to(root).as_posix() for file in files})


def splits_of(shards: Sequence[str]) -> dict[str, list[str]]:
    """Split -> its shards, told by a word in a shard's name, or by its folder; or ``all`` where no shard tells.

    >>> splits_of(["in-train-0.tar", "in-train-1.tar", "test/0.tar"])
    {'train': ['in-train-0.tar', 'in-train-1.tar'], 'test': ['test/0.tar']}

    Raises:
        InputError: only some of the shards tell, or one names two splits.
    """
    splits: dict[str, list[str]] = {}
    for shard in shards:
        folder, _, name = shard.rpartition("/")
        words = re.split(r"[^A-Za-z]+", name.removesuffix(".tar"))
        told = {split for word in words if (split := split_called(word))}
        if len(told) > 1:
            raise InputError(f"{shard}: the name tells two splits; expected one of train, val and test")
        split = told.pop() if told else split_called(folder.rpartition("/")[2])
        splits.setdefault(split or "all", []).append(shard)
    if "all" in splits and len(splits) > 1:
        raise InputError(
            f"{splits['all'][0]}: its name tells no split, unlike others'; "
            "expected train, val or test in each name, or in none"
        )
    return splits


def _is_compressed(name: str) -> bool:
    return _COMPRESSED.search(name) is not None


def _visible(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not is_hidden(path.name)]


def _in_folder(folder: Path) -> list[Path]:
    """The .tar files in a folder and in its train, val and test."""
    entries = _visible(folder)
    inner = [path for sub in entries if sub.is_dir() and split_called(sub.name) for path in _visible(sub)]
    return [path for path in [*entries, *inner] if is_shard(path) and path.is_file()]


def _matching(pattern: str) -> list[Path]:
    """The files of a pattern; each word that its braces stand for matches at least one."""
    files: list[Path] = []
    for word in islice(expand(pattern), _MOST_SHARDS + 1):
        found = sorted(glob.glob(word)) if glob.has_magic(word) else [word] if os.path.exists(word) else []
        if not found:
            raise InputError(f"{pattern}: no file {word}; expected {LAYOUT}")
        files += map(Path, found)
    if len(files) > _MOST_SHARDS:
        raise InputError(f"{pattern}: more than {_MOST_SHARDS} files; expected fewer shards")
    return files


def expand(pattern: str) -> Iterator[str]:
    """What the braces of a pattern stand for.

    >>> list(expand("{a,b}-{08..10}.tar"))
    ['a-08.tar', 'a-09.tar', 'a-10.tar', 'b-08.tar', 'b-09.tar', 'b-10.tar']
    """
    braces = min(filter(None, (_RANGE.search(pattern), _CHOICE.search(pattern))), key=lambda m: m.start(), default=None)
    if braces is None:
        yield pattern
        return
    if braces.re is _RANGE:
        first, last = braces.groups()
        if int(last) < int(first):
            raise InputError(f"{pattern}: {braces.group()} counts down; expected the smaller number first")
        words: Iterator[str] = (f"{n:0{len(first)}d}" for n in range(int(first), int(last) + 1))
    else:
        words = iter(braces.group(1).split(","))
    for word in words:
        yield from expand(pattern[: braces.start()] + word + pattern[braces.end() :])
