"""Indexed collections of labelled images: in files, or in memory. Free of torch."""

import unicodedata
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from convit.data.images import UnreadableImageError, decode_image, encoded_size, image_size, read_image, to_rgb
from convit.errors import InputError


class ImageSet(ABC):
    """N images with their names and targets. Nothing of it changes; it can be pickled, for loader workers.

    names: N stable identifiers with forward slashes, such as ``train/cat/7.jpg`` or ``digits/0123``.
    targets: (N,) int64, positions in ``class_names``.
    class_names: every class of the data source, also those without an image here.
    """

    def __init__(self, names: Sequence[str], targets: ArrayLike, class_names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.targets: NDArray[np.int64] = np.asarray(targets, dtype=np.int64)
        self.class_names = tuple(class_names)
        assert self.targets.shape == (len(self.names),)
        assert np.all((self.targets >= 0) & (self.targets < len(self.class_names)))

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def read(self, index: int) -> Image.Image:
        """Image ``index``, upright, RGB. Raises an :class:`InputError` that names a file that does not decode."""

    @abstractmethod
    def size(self, index: int) -> tuple[int, int]:
        """(width, height) of image ``index``, without decoding it."""

    @abstractmethod
    def where(self, index: int) -> str:
        """What messages call image ``index``: its path, or its name."""

    @abstractmethod
    def contents(self) -> list[int]:
        """A number for each image that is another one, as a rule, once the image is: where it lies in a file the number
        of its bytes, else a checksum; -1 where it cannot be read. No image is decoded for it."""

    @abstractmethod
    def _rebuilt(self, indices: NDArray[np.int64], targets: NDArray[np.int64], class_names: tuple[str, ...]) -> Self:
        """The images at ``indices``, with new targets and class names."""

    def counts(self) -> NDArray[np.int64]:
        """(classes,) how many images each class has here."""
        return np.bincount(self.targets, minlength=len(self.class_names)).astype(np.int64)

    def subset(self, indices: ArrayLike) -> Self:
        """The images at ``indices``, in that order, with the same class names."""
        chosen = np.asarray(indices, dtype=np.int64)
        return self._rebuilt(chosen, self.targets[chosen], self.class_names)

    def with_classes(self, class_names: Sequence[str]) -> Self:
        """The same images with targets into other class names, matched by name and never by position.

        Raises :class:`InputError` for an image whose class is not among them.

        >>> pixels = np.zeros((3, 8, 8), np.uint8)
        >>> images = ArrayImages(pixels, ["a", "b", "c"], [0, 1, 1], ["cat", "dog"])
        >>> images.with_classes(["ape", "cat", "dog"]).targets.tolist()
        [1, 2, 2]
        """
        position = {name: i for i, name in enumerate(class_names)}
        for label in np.flatnonzero(self.counts()):
            if (name := self.class_names[label]) not in position:
                first = self.where(int(np.flatnonzero(self.targets == label)[0]))
                raise InputError(f"unknown class {name!r} (as in {first}); expected one of {listing(class_names)}")
        # A class without an image here may be unknown: nothing points to its -1.
        lookup = np.array([position.get(name, -1) for name in self.class_names], dtype=np.int64)
        return self._rebuilt(np.arange(len(self)), lookup[self.targets], tuple(class_names))


class FileImages(ImageSet):
    """Images in files: image ``i`` is ``root / names[i]``, decoded on each read."""

    def __init__(self, root: Path, names: Sequence[str], targets: ArrayLike, class_names: Sequence[str]) -> None:
        super().__init__(names, targets, class_names)
        self.root = root

    def path(self, index: int) -> Path:
        """The file of image ``index``."""
        return self.root / self.names[index]

    def read(self, index: int) -> Image.Image:
        return read_image(self.path(index))

    def size(self, index: int) -> tuple[int, int]:
        return image_size(self.path(index))

    def where(self, index: int) -> str:
        return str(self.path(index))

    def contents(self) -> list[int]:
        return [self._content(index) for index in range(len(self))]

    def _content(self, index: int) -> int:
        try:
            return self.path(index).stat().st_size
        except OSError:
            return -1

    def _rebuilt(self, indices: NDArray[np.int64], targets: NDArray[np.int64], class_names: tuple[str, ...]) -> Self:
        return type(self)(self.root, [self.names[i] for i in indices], targets, class_names)


class EncodedImages(ImageSet):
    """Images that lie encoded in something larger than a file of their own, decoded on each read."""

    @abstractmethod
    def encoded(self, index: int) -> bytes:
        """The bytes of image ``index``, as a file of its own would hold them."""

    def read(self, index: int) -> Image.Image:
        return decode_image(self.encoded(index), self.where(index))

    def size(self, index: int) -> tuple[int, int]:
        return encoded_size(self.encoded(index), self.where(index))

    def contents(self) -> list[int]:
        return [self._content(index) for index in range(len(self))]

    def _content(self, index: int) -> int:
        try:
            return zlib.crc32(self.encoded(index))
        except UnreadableImageError:
            return -1


class ArrayImages(ImageSet):
    """Images in memory. pixels: uint8, (N, height, width) for grey or (N, height, width, 3) for RGB."""

    def __init__(
        self, pixels: NDArray[np.uint8], names: Sequence[str], targets: ArrayLike, class_names: Sequence[str]
    ) -> None:
        super().__init__(names, targets, class_names)
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3 or (pixels.ndim == 4 and pixels.shape[3] == 3)
        assert len(pixels) == len(self)
        self.pixels = pixels

    def read(self, index: int) -> Image.Image:
        return to_rgb(Image.fromarray(self.pixels[index]))

    def size(self, index: int) -> tuple[int, int]:
        height, width = self.pixels[index].shape[:2]
        return width, height

    def where(self, index: int) -> str:
        return self.names[index]

    def contents(self) -> list[int]:
        return [zlib.crc32(pixels.tobytes()) for pixels in self.pixels]

    def _rebuilt(self, indices: NDArray[np.int64], targets: NDArray[np.int64], class_names: tuple[str, ...]) -> Self:
        return type(self)(self.pixels[indices], [self.names[i] for i in indices], targets, class_names)


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """What :func:`convit.data.open_source` found: official parts, or one whole that nobody has divided yet."""

    name: str
    """A short name, such as the data set's or the folder's."""
    root: str
    """What opens it again from anywhere: an absolute path or pattern, or the data set's name."""
    class_names: tuple[str, ...]
    parts: Mapping[str, ImageSet]
    """Either ``whole`` alone, or some of ``train``, ``val`` and ``test``; all with the same ``class_names``."""
    flip: bool = True
    """Whether a mirrored image still shows its class: not so for digits, letters and traffic signs."""
    ignored: tuple[str, ...] = ()
    """Files that were left aside because their names do not end like an image's."""
    notes: tuple[str, ...] = ()
    """What else was left aside, each in one line for the user."""

    def __post_init__(self) -> None:
        names = set(self.parts)
        assert names == {"whole"} or (names and names <= {"train", "val", "test"})
        assert all(images.class_names == self.class_names for images in self.parts.values())

    @property
    def train(self) -> ImageSet | None:
        """The official training part, if there is one."""
        return self.parts.get("train")

    @property
    def val(self) -> ImageSet | None:
        """The official validation part, if there is one."""
        return self.parts.get("val")

    @property
    def test(self) -> ImageSet | None:
        """The official test part, if there is one."""
        return self.parts.get("test")

    @property
    def whole(self) -> ImageSet | None:
        """Every image, where there are no official parts."""
        return self.parts.get("whole")

    def part(self, name: str) -> ImageSet:
        """The set called ``name``. Raises :class:`InputError` that says which there are."""
        if name not in self.parts:
            raise InputError(f"{self.name}: no part {name!r}; expected one of {listing(self.parts)}")
        return self.parts[name]


def matched(
    sets: Mapping[str, ImageSet], *, min_classes: int, where: str, expected: str
) -> tuple[tuple[str, ...], dict[str, ImageSet]]:
    """The classes of a data source, and its parts with targets into them, matched by name.

    The classes are those of the train part, or of the whole; where there is neither, those of all parts.

    Args:
        sets: part -> images, each with class names of its own.
        min_classes: how few classes there may be.
        where, expected: the beginning and the end of the message if there are fewer.

    Raises:
        InputError: fewer classes, or one of val or test that train lacks.
    """
    leads = [sets[part] for part in ("train", "whole") if part in sets]
    class_names = leads[0].class_names if leads else class_order(c for s in sets.values() for c in s.class_names)
    if len(class_names) < min_classes:
        found = f"only one class, {class_names[0]!r}" if len(class_names) == 1 else f"{len(class_names)} classes"
        raise InputError(f"{where}: {found}; expected at least {min_classes}: {expected}")
    return class_names, {part: images.with_classes(class_names) for part, images in sets.items()}


_PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def part_called(word: str) -> str | None:
    """The part that a folder, split or shard of this name holds, in upper or lower case; None if it is no part's name.

    >>> part_called("Validation"), part_called("cat")
    ('val', None)
    """
    return _PARTS.get(word.lower())


def class_order(names: Iterable[str]) -> tuple[str, ...]:
    """Each name once, sorted; by value if all are whole numbers.

    >>> class_order(["dog", "cat", "dog"]), class_order(["10", "9"])
    (('cat', 'dog'), ('9', '10'))
    """
    known = set(names)
    numbers = all(len(name) < 19 and name.isascii() and name.isdecimal() for name in known)
    return tuple(sorted(known, key=lambda name: (int(name) if numbers else 0, name)))


def is_one_line(text: str) -> bool:
    """Whether a name can be shown in a line and written as UTF-8: no line ends, controls or halves of characters.

    >>> is_one_line("Ünï 1.jpg"), is_one_line("a\\nb")
    (True, False)
    """
    return text.isprintable() or not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text)


def listing(words: Iterable[str], most: int = 10) -> str:
    """Quoted words for a message, cut short when there are many.

    >>> listing(["cat", "dog"]), listing("abcd", most=2)
    ("'cat', 'dog'", "'a', 'b', ... (4 in all)")
    """
    known = list(words)
    shown = ", ".join(repr(word) for word in known[:most])
    return shown if len(known) <= most else f"{shown}, ... ({len(known)} in all)"
