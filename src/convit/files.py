"""Files: regular ones read, written whole or not at all, compared by fingerprints, named in messages on one line.

Longer than other modules, as it is the one home of all that touches the disk: what is right here is right everywhere.
"""

import contextlib
import csv
import errno
import hashlib
import io
import itertools
import json
import math
import os
import shutil
import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from convit.errors import InputError

DISK_FAULTS = {
    *(errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT, errno.EFBIG, errno.ENAMETOOLONG),
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP),  # a place that is not there, or none
}
"""Errors of a path that a user gave, not of the program."""


_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class NoRegularFileError(InputError, OSError):
    """A pipe, a socket or a device where a file is expected: who reads one may wait for ever.

    An ``OSError`` as well, so that it is met where a file that cannot be read is met.
    """

    def __init__(self, path: Path, kind: str) -> None:
        OSError.__init__(self, errno.EINVAL, f"{kind}, not a regular file", str(path))

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}; expected a regular file"


def kind_of(path: Path) -> str:
    """What is at a path, in words for a message.

    >>> kind_of(Path(os.sep)), kind_of(Path("nobody-made-this"))
    ('a folder', 'no such file or folder')
    """
    try:
        return _KINDS.get(stat.S_IFMT(path.stat().st_mode), "a file")
    except (OSError, ValueError):
        return "no such file or folder"


def opened(path: Path) -> io.BufferedReader:
    """A file of the user, opened for reading. Every path that a user gives is opened here.

    Raises:
        NoRegularFileError: a pipe, a socket or a device, also behind a link. It is not opened.
        OSError: as ``open`` does.
    """
    if (kind := kind_of(path)) in ("a pipe", "a socket", "a device"):
        raise NoRegularFileError(path, kind)
    return path.open("rb")


MOST_JSON, MOST_LIST = 1 << 26, 1 << 30
"""Bytes of a JSON document that people could have written by hand, and of one with an entry for each image."""


def read(path: Path, most: int | None = None) -> bytes:
    """The content of a file that :func:`opened` opens.

    Raises:
        OSError: as there; or it has more than ``most`` bytes, of which none is read.
    """
    with opened(path) as stream:
        if most is not None and os.fstat(stream.fileno()).st_size > most:
            raise OSError(errno.EFBIG, f"more than {most} bytes", str(path))
        return stream.read()


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
    temporary = temporary_of(path)
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
    temporary = temporary_of(path)
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


def check_output(option: str, path: Path, *, folder: bool = False) -> None:
    """Whether a result can be written to a place, asked before the work whose result it is. Nothing is left there.

    Args:
        option: what the place is called in the message.
        path: a file, whose folder has to be there; a device or a pipe that is there may be one.
        folder: it is a folder of results, which is made if need be, with those above it.

    Raises:
        InputError: a folder for a file or the other way round, no folder around it, a name that is too long, a place
            that cannot be written to.
    """
    try:
        if folder:
            there = next(above for above in (path.absolute(), *path.absolute().parents) if above.exists())
            for name in path.absolute().relative_to(there).parts:
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    os.lstat(there / name)  # which a name that is too long does not pass
        else:
            there = path.absolute().parent
            if path.is_dir():
                raise InputError(f"{option}: got {path}, which is a folder; expected the name of a file")
            if path.exists() and not path.is_file():
                return  # a device or a pipe, which is written directly
        if not there.is_dir():
            what = "which" if there == path.absolute() else f"and {there}"
            found = f"{what} is {kind_of(there) if there.exists() else 'not there'}"
            raise InputError(f"{option}: got {path}, {found}; expected a folder")
        probe = temporary_of(there / "convit" if folder else absolute(path))
        probe.write_bytes(b"")
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{option}: got {path} ({error.strerror}), expected a place that can be written to") from error


def check_apart(option: str, path: Path, places: Iterable[Path]) -> None:
    """Whether a folder of results lies outside the folders of images: plots among images would be images of a class.

    Args:
        option: what the folder is called in the message.
        path: the folder of results.
        places: the folders of images; what is no folder, such as a list, is passed over.

    Raises:
        InputError: it is one of them, or in one.
    """
    for place in places:
        if place.is_absolute() and place.is_dir() and absolute(path).is_relative_to(absolute(place)):
            raise InputError(f"{option}: got {path}, which lies among the images in {place}; expected a folder apart")


def others_in(path: Path, root: str, what: str) -> str | None:
    """The other images that a JSON file, a ``what``, is of; None if it is not there, or of those of ``root``.

    Raises:
        InputError: it names no images, so it is not replaced.
    """
    if not path.exists():
        return None
    try:
        before = str(parse_json(read(path))["root"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"out: {path}, {kind_of(path)}, is no {what}; expected another folder, or it deleted"
        ) from error
    return None if before == root else before


def numbered(own: Path, taken: Callable[[Path], bool]) -> Path:
    """The first of ``own``, ``own-2``, ``own-3`` and so on that is not taken."""
    more = (own.with_name(f"{own.name}-{number}") for number in itertools.count(2))
    return next(place for place in itertools.chain([own], more) if not taken(place))


def temporary_of(path: Path) -> Path:
    """Where the new content of a file is until all of it is on the disk."""
    return path.with_name(f".{path.name}.tmp")


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
        with opened(path) as stream:
            whole.update(hashlib.file_digest(stream, "sha256").digest())
    return whole.hexdigest()[:16]


def printable(text: str) -> str:
    r"""A name from a user on one line, without control characters of terminals; bytes that are no UTF-8 as numbers.

    >>> print(printable("a\nb"), printable(os.fsdecode(b"caf\xe9")))
    a\nb caf\xe9
    """
    return "".join(c if c.isprintable() or c in _JOINERS else _escape(c) for c in text)


_JOINERS = "\u200c\u200d"
"""Letters of many scripts, such as Devanagari and Persian, are written with these; they are not seen themselves."""


def _escape(letter: str) -> str:
    raw = ord(letter) - 0xDC00  # of a byte that is no text
    return f"\\x{raw:02x}" if 0x80 <= raw <= 0xFF else repr(letter)[1:-1]


def composed(name: str) -> str:
    r"""A name in Unicode's form NFC: of the two ways to write an accent, the one of a single letter.

    Disks and programs change the form of a name, people see no difference. So names are compared in this form.

    >>> composed("cafe\N{COMBINING ACUTE ACCENT}") == "caf\N{LATIN SMALL LETTER E WITH ACUTE}"
    True
    """
    return unicodedata.normalize("NFC", name)


Listed = dict[Path, dict[str, list[str]]]
"""Folder -> the names of its entries, by their composed form."""


def on_disk(path: Path, listed: Listed) -> Path:
    """The path as the disk has it, where its names have another Unicode form there; as it is where none or several do.

    Args:
        path: as a list of files has it.
        listed: the folders that were read on the way; the same one for all paths of a list.
    """
    if str(path).isascii() or path == path.parent or os.path.lexists(path):
        return path
    folder = on_disk(path.parent, listed)
    if folder not in listed:
        listed[folder] = {}
        with contextlib.suppress(OSError):
            for entry in os.listdir(folder):
                listed[folder].setdefault(composed(entry), []).append(entry)
    found = listed[folder].get(composed(path.name), [])
    return folder / found[0] if len(found) == 1 else folder / path.name
