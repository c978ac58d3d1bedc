"""Where copies of images are kept: packs, files in a cache folder that are written once and never changed.

A pack has the pixels of many copies one after the other, and behind them what it knows of each (:data:`ENTRY`), with
their names and a checksum. It gets its name when all of it is on the disk. So neither a kill nor a full disk leaves
half of one, runs that work at the same time need not wait for each other, and a pack that is removed while another run
reads it goes on existing for that run.

    ~/.cache/convit/copies/KEY/PACK.pack        KEY: of the data's root, the way, and the decoder's version

An entry counts only while its image has the stamp that it had when it was decoded: size, mtime, ctime and inode of its
file. Where that was so young that a further change might leave it the same, the file's checksum is compared as well.
"""

import contextlib
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import features

from convit.data.copies import ENTRY, Copies, Reduced, Way
from convit.data.image_sets import ImageSet, Stamp
from convit.errors import counted, one_line
from convit.events import Listener, Said, ignore
from convit.files import fingerprint, replacing

SUFFIX = ".pack"
MAGIC = b"convit pack 1\n\0\0"
"""The first and the last bytes of a pack; another form gets another number."""
_TAIL = 2 * 8 + 16 + len(MAGIC)
"""Bytes at the end: how many entries, how many bytes of names, the checksum of both, the magic."""
MOST_IN_PACK = 1 << 29
"""A pack of more bytes is ended and another begun, so that a kill loses the work of a minute, not of an hour."""
SETTLED = 2.0
"""Seconds: a file system may give two changes within so little time the same ctime (FAT counts in twos)."""
IN_USE = 3600.0
"""Seconds since a pack was read, up to which a run may be going on with it."""
KEPT_DAYS = 60
"""A pack that no run has read for so long is removed."""


def cache_folder() -> Path:
    """Where copies are kept: ``$XDG_CACHE_HOME/convit/copies``, or else ``~/.cache/convit/copies``."""
    place = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    with contextlib.suppress(RuntimeError):  # no home
        place = place.expanduser()
    return place / "convit" / "copies"


@dataclass(frozen=True, slots=True)
class Cache:
    """The packs of all data.

    Attributes:
        gb: how many gigabytes (10^9 bytes) they may take together; with 0 none is read or written.
    """

    gb: float

    @property
    def limit(self) -> int:
        """The same in bytes."""
        return int(self.gb * 1e9)

    def of(self, root: str, way: Way) -> "Packs":
        """The packs of the images of one source, made in one way. Decoders of other versions may give other pixels."""
        decoders = [PIL.__version__, *map(features.version, ("jpg", "libjpeg_turbo", "webp", "avif"))]
        key = fingerprint([MAGIC.decode(), root, repr(way), *map(str, decoders)])
        return Packs(cache_folder() / key, way, self.limit)

    def clean(self) -> None:
        """Removes packs that no run has read for :data:`KEPT_DAYS`, and, as long as all take more than the limit, the
        one that was not read for longest; and what killed runs left."""
        if not self.limit:  # this run keeps none, others do
            return
        found, total = [], 0
        for age, size, path in _files():
            if age > (KEPT_DAYS * 86400 if path.suffix == SUFFIX else 86400):
                _remove(path)
            elif path.suffix == SUFFIX:
                found.append((age, size, path))
                total += size
        for _, size, path in sorted(found, reverse=True):
            if total <= self.limit:
                break
            _remove(path)
            total -= size
        for folder in cache_folder().glob("*"):
            with contextlib.suppress(OSError):
                folder.rmdir()  # which one with a pack in it refuses


def _files() -> Iterator[tuple[float, int, Path]]:
    """Of each file in the folders of packs: seconds since it was read by a run or written, bytes, and where it is."""
    for path in cache_folder().glob("*/*"):
        with contextlib.suppress(OSError):  # another run has removed it
            stat = path.stat()
            yield time.time() - stat.st_mtime, stat.st_size, path


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


class DamagedPackError(Exception):
    """A pack that is not as it was written."""


@dataclass(frozen=True, slots=True)
class Packs:
    """The packs of the images of one source, made in one way."""

    folder: Path
    way: Way
    limit: int

    def copies(self, images: ImageSet, tell: Listener = ignore, *, known: Sequence[Stamp] | None = None) -> Copies:
        """The copies of the images, read from here where they are kept.

        Args:
            images: of the source.
            tell: is told of packs that are damaged, which are removed.
            known: the stamps of the images, where they were asked for already.
        """
        stamps = known if known is not None else images.stamps() if self.limit else None
        if stamps is None or not self.limit:
            return Copies(images, self.way)
        paths = sorted(self.folder.glob(f"*{SUFFIX}")) if self.folder.is_dir() else []  # the names tell the time
        which, entries = np.full(len(images), -1), np.zeros(len(images), ENTRY)
        present = np.array(stamps, dtype=np.int64).reshape(-1, 4)
        read_in: list[Path] = []
        for path in paths:
            try:
                names, found = _read(path)
            except (OSError, DamagedPackError) as error:
                tell(Said(f"{path}: {one_line(error)}: removed, and its images decoded again"))
                _remove(path)
                continue
            place = dict(zip(names, range(len(names)), strict=True))
            rows = np.fromiter((place.get(name, -1) for name in images.names), np.int64, len(images))
            fits = (rows >= 0) & (found["stamp"][rows] == present).all(axis=1) & (present[:, 0] != -1)
            fits &= (entries["at"] == 0) | (found["at"][rows] > 0)  # the newest, unless it has no pixels
            for index in np.flatnonzero(fits & (found["young"][rows] > 0)).tolist():
                fits[index] = found["checksum"][rows[index]] == images.checksum(index).encode() != b""
            entries[fits], which[fits] = found[rows[fits]], len(read_in)
            read_in.append(path)
        for used in np.unique(which[which >= 0]).tolist():
            with contextlib.suppress(OSError):
                os.utime(read_in[used])  # read now: it is not old
        return Copies(images, self.way, read_in, which, entries)

    @contextlib.contextmanager
    def writing(self, tell: Listener = ignore) -> Iterator["Writer"]:
        """What adds copies here. A disk that is full or cannot be written to is told, and nothing more is kept."""
        writer = Writer(self, tell)
        try:
            yield writer
        finally:
            writer.end()

    def room(self) -> int:
        """Bytes that may still be added: up to the limit, and to half of what is free on the disk. Packs that no run
        has read for an hour do not count: they make room (:meth:`Cache.clean`)."""
        place = self.folder
        while not place.exists() and place != place.parent:
            place = place.parent
        try:
            taken = sum(size for age, size, _ in _files() if age < IN_USE)
            return max(0, min(self.limit - taken, shutil.disk_usage(place).free // 2))
        except OSError:
            return 0


NOTHING_KEPT = Packs(Path(), Reduced(2**30), limit=0)
"""No packs: images are decoded whole, and no copy is kept."""


def _read(path: Path) -> tuple[list[str], NDArray[Any]]:
    """The names and the entries of a pack.

    Raises:
        DamagedPackError: it is not as it was written.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - _TAIL))
        tail = file.read(_TAIL)
        if len(tail) < _TAIL or not tail.endswith(MAGIC):
            raise DamagedPackError("damaged copies")
        count, length = (int.from_bytes(tail[8 * i : 8 * i + 8], "little") for i in range(2))
        start = size - _TAIL - length - count * ENTRY.itemsize
        if start < 0:
            raise DamagedPackError("damaged copies")
        file.seek(start)
        index = file.read(size - _TAIL - start)
    if _checksum(index) != tail[16:32]:
        raise DamagedPackError("damaged copies")
    entries = np.frombuffer(index, ENTRY, count)
    names = index[count * ENTRY.itemsize :].decode(errors="surrogateescape").split("\0") if count else []
    return names, entries


def _checksum(index: bytes) -> bytes:
    return hashlib.blake2b(index, digest_size=16).digest()


class Writer:
    """Adds copies to packs.

    Args:
        packs: where.
        tell: is told of a disk that is full or cannot be written to.
    """

    def __init__(self, packs: Packs, tell: Listener) -> None:
        self.packs, self.tell = packs, tell
        self.room, self.written, self.left_out = packs.room(), 0, 0
        self._open: contextlib.ExitStack | None = None
        self._file: IO[bytes] | None = None
        self._names: list[str] = []
        self._entries: list[Any] = []
        self.failed = not packs.limit

    def add(self, name: str, entry: Any, pixels: bytes | None) -> None:
        """What is known of an image, and the pixels of its copy.

        Args:
            name: of the image.
            entry: of :data:`ENTRY`, without ``at``.
            pixels: RGB; None to keep none.
        """
        if self.failed:
            return
        if pixels is not None and self.written + len(pixels) > self.room:
            self.left_out, pixels = self.left_out + 1, None
        try:
            file = self._begun()
            if pixels is not None:
                entry["at"] = file.tell()
                file.write(pixels)
                self.written += len(pixels)
            self._names.append(name)
            self._entries.append(entry)
            if file.tell() > MOST_IN_PACK:
                self._finish()
        except OSError as error:
            self._fail(error)

    def end(self) -> None:
        """Puts what was added on the disk, and tells what was not kept."""
        try:
            self._finish()
        except OSError as error:
            self._fail(error)
        if self.left_out and not self.failed:
            gb = self.packs.limit / 1e9
            what = counted(self.left_out, "copy of an image does", "copies of images do")
            self.tell(Said(f"{what} not fit --cache-gb {gb:g}, or half of the free disk: decoded anew each time"))

    def _begun(self) -> IO[bytes]:
        if self._file is None:
            self.packs.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            name = f"{time.time_ns():020d}-{secrets.token_hex(4)}{SUFFIX}"
            with contextlib.ExitStack() as stack:
                self._file = stack.enter_context(replacing(self.packs.folder / name))
                self._file.write(MAGIC)
                self._open = stack.pop_all()
        return self._file

    def _finish(self) -> None:
        if self._file is None or self._open is None:
            return
        opened, file, self._open, self._file = self._open, self._file, None, None
        names = "\0".join(self._names).encode(errors="surrogateescape")
        index = b"".join(entry.tobytes() for entry in self._entries) + names
        count, self._names, self._entries = len(self._entries), [], []
        with opened:
            file.write(index)
            file.write(count.to_bytes(8, "little") + len(names).to_bytes(8, "little") + _checksum(index) + MAGIC)

    def _fail(self, error: OSError) -> None:
        """Nothing more is kept; what is in the pack that was being written is given up."""
        opened, self._open, self._file, self.failed = self._open, None, None, True
        if opened is not None:
            with contextlib.suppress(OSError):
                opened.__exit__(OSError, error, None)
        why = error.strerror or one_line(error)
        self.tell(Said(f"no copies of the images are kept ({self.packs.folder}: {why}): files are decoded each time"))


def is_young(stamp: Stamp) -> bool:
    """Whether a further change of the image may leave its stamp the same, as it was changed a moment ago."""
    return max(stamp[1:3]) > time.time_ns() - int(SETTLED * 1e9)
