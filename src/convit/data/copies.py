"""Small copies of images: how they are made, and a set of them to read from.

A photo of a phone takes a tenth of a second to decode, at every epoch, and a model sees a hundredth of its pixels. So a
run learns from a copy of it, which is as large as its largest use needs; the copies are kept on disk
(:mod:`convit.data.packs`). A copy is a function of the image and of the way alone: where none is kept it is made anew,
with the same pixels. So nothing depends on what is kept, and a run resumes to the same bits without it.

Training and evaluation have ways of their own. What is learned from may be decoded reduced (a JPEG at a half, a quarter
or an eighth of its size), as no other place has to give those pixels again. An evaluation has to agree with
``convit predict`` and with exported files, to the bit: its copy is the picture decoded whole, as they decode it, in the
pixels of the model's input, before they are normalised.
"""

import mmap
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convit.data.image_sets import ImageSet
from convit.preprocess import Preprocess, covering

ENTRY = np.dtype(
    [
        *(("stamp", "<i8", 4), ("at", "<u8"), ("height", "<u4"), ("width", "<u4"), ("crc", "<u4")),
        *(("young", "u1"), ("deep", "u1"), ("low", "<f8"), ("high", "<f8"), ("full_scale", "<f8"), ("checksum", "S16")),
    ]
)
"""What a pack has of an image: its stamp; where its pixels begin, 0 if they are not kept, their size and crc32; whether
the stamp is too young to tell a further change; whether the image is deep (0 no, 1 whole numbers, 2 floats), the range
of its grey values and the full scale that its pixels are of; and its checksum, empty if it was not needed."""


@dataclass(frozen=True, slots=True)
class Reduced:
    """The way of training: the shorter side has at most ``side`` pixels, none is made larger."""

    side: int

    def __call__(self, image: Image.Image) -> Image.Image:
        """The copy of an RGB image, which may have been decoded reduced as far as ``side`` allows."""
        short = min(image.size)
        if short <= self.side:
            return image
        width, height = (max(1, round(length * self.side / short)) for length in image.size)
        return image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)


@dataclass(frozen=True, slots=True)
class Fitted:
    """The way of evaluation: the pixels that :func:`convit.preprocess.prepared` normalises."""

    image_size: tuple[int, int]
    interpolation: str
    crop_pct: float
    side: None = None
    """It is decoded whole."""

    @classmethod
    def to(cls, preprocess: Preprocess) -> Self:
        """The way of this preprocessing."""
        return cls(preprocess.image_size, preprocess.interpolation, preprocess.crop_pct)

    def __call__(self, image: Image.Image) -> Image.Image:
        """The copy of an RGB image."""
        return covering(image, self.image_size, self.interpolation, self.crop_pct)


Way = Reduced | Fitted


def learning_side(image_size: tuple[int, int], scale: float) -> int:
    """Pixels of the shorter side of what is learned from: the smallest part that is cropped, ``scale`` of the area, is
    just as large as the model's input, so that no crop shows fewer pixels than it could. (The first epochs may have
    smaller inputs, never larger ones.)

    >>> learning_side((128, 128), 0.35), learning_side((32, 32), 1.0)
    (217, 32)
    """
    return int(np.ceil(max(image_size) / np.sqrt(scale)))


class Copies:
    """The copies of an image set, read from packs or made anew. It can be pickled for loader workers.

    Args:
        images: what they are copies of.
        way: how they are made.
        packs: the files that have some of them.
        which: (N,) the pack that has each; -1 for none.
        entries: (N,) of :data:`ENTRY`, what it has.
    """

    def __init__(
        self,
        images: ImageSet,
        way: Way,
        packs: Sequence[Path] = (),
        which: NDArray[np.int64] | None = None,
        entries: NDArray[Any] | None = None,
    ) -> None:
        self.images, self.way, self.packs = images, way, tuple(packs)
        self.targets = images.targets
        self.which = np.full(len(images), -1) if which is None else which
        self.entries = np.zeros(len(images), ENTRY) if entries is None else entries
        self._maps: dict[int, mmap.mmap | None] = {}
        scale = -1.0 if images.full_scale is None else images.full_scale
        of_scale = (self.entries["deep"] == 0) | (self.entries["full_scale"] == scale)
        self.kept: NDArray[np.bool_] = (self.which >= 0) & (self.entries["at"] > 0) & of_scale
        """(N,) whether the pixels of each are in a pack, and of the full scale."""

    def __len__(self) -> int:
        return len(self.images)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_maps": {}}

    def read(self, index: int) -> Image.Image:
        """The copy of image ``index``, RGB. Raises as :meth:`ImageSet.read` does."""
        pixels = self.kept_pixels(index)
        if pixels is None:
            return self.made(index)
        size = int(self.entries["width"][index]), int(self.entries["height"][index])
        return Image.frombytes("RGB", size, pixels)

    def made(self, index: int) -> Image.Image:
        """The copy, made of the image."""
        return self.way(self.images.read(index, self.way.side))

    def kept_pixels(self, index: int) -> memoryview | None:
        """The bytes of a copy in a pack, where they are as they were written; None where none has it, or not so."""
        if not self.kept[index]:
            return None
        _, at, height, width, crc, *_ = self.entries[index].item()
        pixels = self._map(int(self.which[index]))
        if pixels is None or len(pixels) < at + 3 * height * width:
            return None
        view = memoryview(pixels)[at : at + 3 * height * width]
        return view if zlib.crc32(view) == crc else None

    def _map(self, pack: int) -> mmap.mmap | None:
        """A pack in memory; None if it is gone."""
        if pack not in self._maps:
            try:
                with self.packs[pack].open("rb") as file:
                    self._maps[pack] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError):
                self._maps[pack] = None
        return self._maps[pack]
