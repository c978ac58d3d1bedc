"""Indexed collections of labelled images: in files, or in memory. Free of torch."""

import copy
import hashlib
import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from convit.data.decoding import UnreadableImageError
from convit.data.images import encoded_size, image_size, named_rgb, stored_image, stored_in
from convit.errors import InputError, listing, nearest
from convit.files import composed, fingerprint_of_files, read

Stamp = tuple[int, int, int, int]
"""Four numbers that are others when the image has been written anew: of a file its size in bytes, when its content and
when it itself was changed last (mtime and ctime, in ns), and its inode; all -1 where there is none. A program can set
mtime back, and no program ctime; systems without a ctime, Windows among them, tell less."""
NO_STAMP: Stamp = (-1, -1, -1, -1)

UNPACKED = (".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff")
"""Files whose sizes tell little: uncompressed pictures of one camera are all of one size."""


class ImageSet(ABC):
    """N images with their names and targets. It is immutable, and can be pickled for loader workers.

    Args:
        names: N stable identifiers with forward slashes, such as ``train/cat/7.jpg`` or ``digits/0123``.
        targets: (N,) int64, positions in ``class_names``.
        class_names: every class of the source, also those without an image here.
    """

    of_each: ClassVar[tuple[str, ...]] = ()
    """Names of arrays that have a row for each image, besides its name and its target."""
    full_scale: float | None = None
    """The value that is white where grey values are floats or have more than 8 bits
    (:func:`convit.preprocess.to_rgb`); None where it is not known."""

    def __init__(self, names: Sequence[str], targets: ArrayLike, class_names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.targets: NDArray[np.int64] = np.asarray(targets, dtype=np.int64)
        self.class_names = tuple(class_names)
        assert self.targets.shape == (len(self.names),)
        assert np.all((self.targets >= 0) & (self.targets < len(self.class_names)))

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int, side: int | None = None) -> Image.Image:
        """Image ``index``, upright, RGB; a JPEG reduced as far as ``side`` allows
        (:func:`convit.data.decoding.opened`). Raises an :class:`InputError` that names a file that does not decode."""
        return named_rgb(self.stored(index, side), self.full_scale, self.where(index))

    @abstractmethod
    def stored(self, index: int, side: int | None = None) -> Image.Image:
        """Image ``index``, upright, in the mode that it is stored in, reduced as in :meth:`read`. Raises as it does."""

    @abstractmethod
    def size(self, index: int) -> tuple[int, int]:
        """(width, height) of image ``index`` as it is stored, without decoding it: a turn by EXIF would swap them."""

    @abstractmethod
    def where(self, index: int) -> str:
        """What messages call image ``index``: its path, or its name."""

    @abstractmethod
    def content(self, index: int) -> int:
        """A number that usually changes when image ``index`` does; -1 if it cannot be read.

        Of a compressed image in a file it is the size in bytes, else a checksum. No image is decoded for it.
        """

    def contents(self) -> list[int]:
        """That number of each image."""
        return [self.content(index) for index in range(len(self))]

    def stamps(self) -> list[Stamp] | None:
        """Of each image the :data:`Stamp` of what it is read from; None for images in memory."""
        return [self.stamp(index) for index in range(len(self))]

    @abstractmethod
    def stamp(self, index: int) -> Stamp:
        """The same of one image."""

    @abstractmethod
    def checksum(self, index: int) -> str:
        """16 hexadecimal digits, equal for two images only if all of their bytes are; empty if it cannot be read."""

    def counts(self) -> NDArray[np.int64]:
        """(classes,) how many images each class has here."""
        return np.bincount(self.targets, minlength=len(self.class_names)).astype(np.int64)

    def subset(self, indices: ArrayLike) -> Self:
        """The images at ``indices``, in that order, with the same class names."""
        same, chosen = copy.copy(self), np.asarray(indices, dtype=np.int64)
        same.names = tuple(self.names[i] for i in chosen)
        for name in ("targets", *self.of_each):
            setattr(same, name, getattr(self, name)[chosen])
        return same

    def scaled(self, full_scale: float | None) -> Self:
        """The same images with another ``full_scale``."""
        same = copy.copy(self)
        same.full_scale = full_scale
        return same

    def called(self, names: Iterable[str]) -> Self:
        """The images that have one of these names, in either Unicode form, in the order that they have here."""
        wanted = set(map(composed, names))
        return self.subset([i for i, name in enumerate(self.names) if composed(name) in wanted])

    def with_classes(self, class_names: Sequence[str]) -> Self:
        """The same images with targets for other class names, matched by name, in either Unicode form, and never by
        position.

        Raises :class:`InputError` for an image whose class is not among them.

        >>> pixels = np.zeros((3, 8, 8), np.uint8)
        >>> images = ArrayImages(pixels, ["a", "b", "c"], [0, 1, 1], ["cat", "dog"])
        >>> images.with_classes(["ape", "cat", "dog"]).targets.tolist()
        [1, 2, 2]
        """
        position = {composed(name): i for i, name in enumerate(class_names)}
        for label in np.flatnonzero(self.counts()):
            if composed(name := self.class_names[label]) not in position:
                first = self.where(int(np.flatnonzero(self.targets == label)[0]))
                raise InputError(
                    f"unknown class {name!r} (as in {first}); expected one of {listing(class_names)}"
                    f"{nearest(name, class_names)}"
                )
        # A class without an image here may be unknown: nothing points to its -1.
        lookup = np.array([position.get(composed(name), -1) for name in self.class_names], dtype=np.int64)
        same = copy.copy(self)
        same.targets, same.class_names = lookup[self.targets], tuple(class_names)
        return same


class FileImages(ImageSet):
    """Images in files: image ``i`` is ``root / names[i]``, decoded on each read."""

    def __init__(self, root: Path, names: Sequence[str], targets: ArrayLike, class_names: Sequence[str]) -> None:
        super().__init__(names, targets, class_names)
        self.root = root

    def path(self, index: int) -> Path:
        """The file of image ``index``."""
        return self.root / self.names[index]

    def stored(self, index: int, side: int | None = None) -> Image.Image:
        return stored_image(self.path(index), side)

    def size(self, index: int) -> tuple[int, int]:
        return image_size(self.path(index))

    def where(self, index: int) -> str:
        return str(self.path(index))

    def content(self, index: int) -> int:
        name = self.names[index]
        try:
            if name.lower().endswith(UNPACKED) and self.path(index).is_file():
                return zlib.crc32(read(self.path(index)))
            return os.stat(os.path.join(self.root, name)).st_size
        except OSError:
            return -1

    def stamp(self, index: int) -> Stamp:
        return stamp_of(os.path.join(self.root, self.names[index]))

    def checksum(self, index: int) -> str:
        try:
            return fingerprint_of_files(self.path(index))
        except OSError:
            return ""


class EncodedImages(ImageSet):
    """Encoded images inside larger files, such as shards, decoded on each read."""

    @abstractmethod
    def encoded(self, index: int) -> bytes:
        """The bytes of image ``index``, as a file of its own would hold them."""

    def stored(self, index: int, side: int | None = None) -> Image.Image:
        return stored_in(self.encoded(index), self.where(index), side)

    def size(self, index: int) -> tuple[int, int]:
        return encoded_size(self.encoded(index), self.where(index))

    def content(self, index: int) -> int:
        try:
            return zlib.crc32(self.encoded(index))
        except UnreadableImageError:
            return -1

    def stamp(self, index: int) -> Stamp:
        crc = self.content(index)
        return NO_STAMP if crc == -1 else (crc, 0, 0, 0)

    def checksum(self, index: int) -> str:
        try:
            return hashlib.sha256(self.encoded(index)).hexdigest()[:16]
        except UnreadableImageError:
            return ""


class ArrayImages(ImageSet):
    """Images in memory. pixels: uint8, (N, height, width) for grey or (N, height, width, 3) for RGB."""

    of_each = ("pixels",)

    def __init__(
        self, pixels: NDArray[np.uint8], names: Sequence[str], targets: ArrayLike, class_names: Sequence[str]
    ) -> None:
        super().__init__(names, targets, class_names)
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3 or (pixels.ndim == 4 and pixels.shape[3] == 3)
        assert len(pixels) == len(self)
        self.pixels = pixels

    def stored(self, index: int, side: int | None = None) -> Image.Image:
        return Image.fromarray(self.pixels[index])

    def size(self, index: int) -> tuple[int, int]:
        height, width = self.pixels[index].shape[:2]
        return width, height

    def where(self, index: int) -> str:
        return self.names[index]

    def content(self, index: int) -> int:
        return zlib.crc32(self.pixels[index].tobytes())

    def stamps(self) -> None:
        return None

    def stamp(self, index: int) -> Stamp:
        return NO_STAMP

    def checksum(self, index: int) -> str:
        return hashlib.sha256(self.pixels[index].tobytes()).hexdigest()[:16]


def stamp_of(path: str | Path) -> Stamp:
    """The stamp of a file."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return NO_STAMP
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino & (2**63 - 1)
