"""Decodes every image once, and measures it: size, brightness, sharpness, and the thumb that is hashed."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convit.checks.near import SIDE, thumb
from convit.checks.pictures import Pictures
from convit.data.full_scale import Levels
from convit.data.scan import look
from convit.events import Listener, ignore

LONGEST = 256
"""Brightness and sharpness are those of the image with its longer side reduced to so many pixels, if it is larger."""


@dataclass(frozen=True)
class Measured:
    """What is known of N images; NaN and 0 of those that cannot be decoded."""

    reasons: dict[int, str]
    """Number of an image that cannot be decoded -> why."""
    size: NDArray[np.int64]
    """(N, 2) width and height in pixels."""
    brightness: NDArray[np.float64]
    """(N,) mean grey value, 0 to 255."""
    contrast: NDArray[np.float64]
    """(N,) standard deviation of the grey values."""
    sharpness: NDArray[np.float64]
    """(N,) variance of the Laplacian over that of the grey values: how much of what there is to see is fine detail."""
    thumbs: NDArray[np.uint8]
    """(N, 32, 32) see :func:`convit.checks.near.thumb`."""

    @classmethod
    def empty(cls, count: int) -> "Measured":
        """Of so many images nothing is known yet."""
        light, contrast, sharp = (np.full(count, np.nan) for _ in range(3))
        size, thumbs = np.zeros((count, 2), np.int64), np.zeros((count, SIDE, SIDE), np.uint8)
        return cls({}, size, light, contrast, sharp, thumbs)

    @property
    def decoded(self) -> NDArray[np.bool_]:
        """(N,) whether the image can be decoded."""
        return self.size[:, 0] > 0

    def take(self, i: int, image: Image.Image) -> None:
        """Measures image ``i``, given as RGB."""
        self.size[i] = image.size
        grey = image.convert("L")
        self.thumbs[i] = thumb(grey)
        if max(grey.size) > LONGEST:
            ratio = LONGEST / max(grey.size)
            sides = tuple(max(1, round(side * ratio)) for side in grey.size)
            grey = grey.resize((sides[0], sides[1]), Image.Resampling.BOX, reducing_gap=2.0)
        values = np.asarray(grey, np.float32)
        self.brightness[i], self.contrast[i] = values.mean(), values.std()
        if min(values.shape) > 2 and self.contrast[i] > 0:
            self.sharpness[i] = _laplacian(values).var() / values.var()


def _laplacian(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """(H - 2, W - 2) the four neighbours less four times the pixel."""
    middle = values[1:-1, 1:-1]
    return values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:] - 4 * middle


def measured(pictures: Pictures, name: str, tell: Listener = ignore) -> tuple[Pictures, Measured]:
    """What is known of the images, and the images with the full scale that was found.

    Where that is not given and some have more than 8 bits, they are decoded twice: what is white follows from those
    of the first split, as in training.

    Args:
        pictures: the images.
        name: of the data, for messages.
        tell: gets the progress.

    Raises:
        InputError: it is not clear what is white.
    """
    known = next(iter(pictures.sets.values())).full_scale
    found, levels = _pass(pictures, tell)
    if known is None and levels != Levels() and (scale := levels.full_scale(name)) is not None:
        pictures = pictures.scaled(scale)
        found, _ = _pass(pictures, tell)
    return pictures, found


def _pass(pictures: Pictures, tell: Listener) -> tuple[Measured, Levels]:
    out, levels, first = Measured.empty(len(pictures)), Levels(), 0
    for split, images in pictures.sets.items():
        what = "checking images" if split == "all" else f"checking {split} images"
        bad, seen = look(images, what, tell, lambda i, image, first=first: out.take(first + i, image))  # type: ignore[misc]
        number = {name: first + i for i, name in enumerate(images.names)}
        out.reasons.update({number[image.name]: image.reason for image in bad})
        levels = seen if first == 0 else levels  # what is white follows from those to learn from
        first += len(images)
    return out, levels
