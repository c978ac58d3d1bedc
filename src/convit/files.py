"""Files: written whole or not at all, compared by fingerprints, and named in messages on one line."""

import contextlib
import csv
import errno
import hashlib
import io
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

DISK_FAULTS = frozenset(
    {errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT, errno.EFBIG, errno.ENAMETOOLONG}
    | {
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
        errno.ELOOP,
    }  # a place that is not there, or no such place
)
"""Errors of a path that a user gave, not of the program."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A stream for the new content of a file, which replaces the old content when all of it is on the disk.

    Neither a kill nor a power cut leaves half a file; after an error the old file is unchanged. A link remains a link,
    and a device or a pipe is written directly.
    """
    if path.exists() and not path.is_file():
        with path.open("wb") as stream:
            yield stream
        return
    if path.is_symlink():
        path = absolute(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """An empty folder to write files into, which is renamed to ``path`` when all of them are on the disk.

    A kill leaves the folder under its temporary name; after an error nothing of it is left. Folders above are made.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for file in sorted(temporary.iterdir(), reverse=True):
            with file.open("rb+") as stream:
                os.fsync(stream.fileno())
        shutil.rmtree(path, ignore_errors=True)
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync(path.parent)


def write(path: Path, content: str | bytes) -> None:
    r"""Writes a file whole or not at all; text as UTF-8, its line ends as they are, lone surrogates as ``\udcff``."""
    with replacing(path) as stream:
        stream.write(content.encode(errors="backslashreplace") if isinstance(content, str) else content)


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Writes a table whole or not at all, a line for each row."""
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    write(path, text.getvalue())


def write_json(path: Path, value: Any) -> None:
    """Writes one JSON document whole or not at all. Floats that are no numbers are refused: JSON has none."""
    write(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def parse_json(content: str | bytes, *, finite: bool = True) -> Any:
    """A JSON document of somebody else.

    Args:
        content: the text.
        finite: whether NaN and infinities are refused; JSON has none, a loss that diverged is one.

    Raises:
        ValueError: not JSON, a name twice in one object, a number beyond the range of floats, nested too deeply.

    >>> parse_json('{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    """

    def number(text: str) -> float:
        value = float(text)
        if finite and not math.isfinite(value):
            raise ValueError(f"the number {text[:40]}")
        return value

    try:
        return json.loads(content, object_pairs_hook=_each_once, parse_float=number, parse_constant=number)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise ValueError(f"{twice[:80]!r} twice")
    return out


def absolute(path: Path) -> Path:
    """The path from the root, without links; where links go round in a circle, as far as they can be followed."""
    return Path(os.path.realpath(path))


def sync(folder: Path) -> None:
    """Makes a rename in ``folder`` last through a power cut, where the system can open folders."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def fingerprint(value: Any) -> str:
    """16 hexadecimal digits that differ for different values of JSON's types.

    >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) != fingerprint({"a": 1})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def fingerprint_of_files(*paths: Path) -> str:
    """The same of the contents of files."""
    whole = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            whole.update(hashlib.file_digest(stream, "sha256").digest())
    return whole.hexdigest()[:16]


def printable(text: str) -> str:
    r"""A name from a user on one line, without control characters of terminals.

    >>> print(printable("a\nb"))
    a\nb
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
