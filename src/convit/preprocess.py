"""How an image becomes a model's input in evaluation: on NumPy and Pillow, so that an exported file needs no PyTorch.

The one evaluation transform: validation in training, ``convit predict``, ``convit inspect`` and exported files use it.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convit.errors import InputError, brief, listing, nearest

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of red, green and blue in ImageNet: most published weights were trained with them."""
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
LARGEST = 2**24
"""Of an image that would have more pixels than this once it is resized, only the part that is kept is resized: very
long ones would take gigabytes."""


_CHANNELS = "of red, green and blue"
MOST_SIDE, LEAST_PART = 8192, 0.05
"""The largest side of an input in pixels, and the smallest part of an image that evaluation keeps: images are resized
to their quotient first, so that beyond these a file of a few letters would take gigabytes."""


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How an image becomes a model's input; stored beside the weights.

    Raises:
        InputError: a value of a wrong type or out of its range.
    """

    image_size: tuple[int, int]
    """(height, width) in pixels."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    """Mean of red, green and blue, each channel in 0 .. 1."""
    std: tuple[float, ...] = IMAGENET_STD
    """Standard deviation of red, green and blue."""
    interpolation: str = "bicubic"
    crop_pct: float = 1.0
    """Part of the resized image, along each side, that the centre crop keeps."""
    full_scale: float | None = None
    """The value that is white in grey images of more than 8 bits or of floats (:func:`to_rgb`); None if the model
    learned from 8-bit images alone."""

    def __post_init__(self) -> None:
        size, part = self.image_size, self.crop_pct
        sides = f"(height, width) in pixels, up to {MOST_SIDE}"
        check("image_size", size, are_numbers(size, 2, 1, MOST_SIDE, whole=True), sides)
        check("mean", self.mean, are_numbers(self.mean, 3, -1e4, 1e4), f"three numbers, {_CHANNELS}, up to 10000")
        check("std", self.std, are_numbers(self.std, 3, 1e-6, 1e6), f"three numbers, {_CHANNELS}, from 1e-6 to 1e6")
        check_choice("interpolation", self.interpolation, INTERPOLATIONS)
        check("crop_pct", part, is_part(part) and part >= LEAST_PART, f"a number from {LEAST_PART} to 1")
        most = 2 * MOST_SIDE
        check("crop_pct", part, max(size) <= most * part, f"at least {max(size) / most:.2g} for {max(size)} pixels")
        fits = self.full_scale is None or are_numbers((self.full_scale,), 1, 1e-6, 1e9)
        check("full_scale", self.full_scale, fits, "a number from 1e-6 to 1e9, or None")

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON knows them: tuples become lists."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`. Raises :class:`InputError` for an unknown or missing key, or a wrong value.

        >>> preprocess = Preprocess(image_size=(32, 48))
        >>> Preprocess.from_dict(preprocess.to_dict()) == preprocess
        True
        """
        known = [field.name for field in fields(cls)]
        if unknown := [key for key in values if key not in known]:
            raise InputError(f"preprocessing: unknown key {listing(unknown)}; expected {listing(known)}")
        if missing := [key for key in known if key not in values]:
            raise InputError(f"preprocessing: no key {listing(missing)}; expected {listing(known)}")
        fitting: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**fitting)


def prepared(image: Image.Image, preprocess: Preprocess) -> NDArray[np.float32]:
    """An image of any size and mode as the model takes it, ``(3, height, width)``: ``(value / 255 - mean) / std``.

    Raises :class:`InputError` as :func:`to_rgb` does.

    >>> prepared(Image.new("RGB", (100, 70)), Preprocess(image_size=(32, 48))).shape
    (3, 32, 48)
    """
    image = to_rgb(image, preprocess.full_scale)
    image = covering(image, preprocess.image_size, preprocess.interpolation, preprocess.crop_pct)
    pixels = np.asarray(image, dtype=np.float32) / np.float32(255)
    normal = (pixels - np.asarray(preprocess.mean, np.float32)) / np.asarray(preprocess.std, np.float32)
    return np.ascontiguousarray(normal.transpose(2, 0, 1))


def is_deep(image: Image.Image) -> bool:
    """Whether it is grey of more than 8 bits or of floats (Pillow's modes ``I``, ``I;16``, ... and ``F``)."""
    return image.mode == "F" or image.mode.startswith("I")


def to_rgb(image: Image.Image, full_scale: float | None = None) -> Image.Image:
    """An 8-bit RGB image of the same size, from an image of any Pillow mode.

    Transparent pixels are composited on white. A grey value of more than 8 bits, or a float, becomes
    ``255 * value / full_scale``, within 0 and 255. Without a full scale 65535 is white among whole numbers, 1 among
    floats: one rule for all images, as one that depends on the image would give equal pixels different values.

    Raises:
        InputError: values that are not of this scale: a tenth of the pixels below or above it; or, where the scale was
            not given, whole numbers up to 255 alone, which would all be black.

    >>> to_rgb(Image.new("LA", (1, 1), (0, 0))).getpixel((0, 0))
    (255, 255, 255)
    >>> to_rgb(Image.new("I", (1, 1), 1024), full_scale=4095).getpixel((0, 0))
    (64, 64, 64)
    """
    if is_deep(image):
        return _grey_to_rgb(image, full_scale)
    if not image.has_transparency_data:
        return image.convert("RGB") if image.mode != "RGB" else image
    made = Image.new("RGB", image.size)
    for box in strips(image.size):  # a few rows at a time: a copy of a large image takes as much memory as the image
        strip = image.crop(box)
        white = Image.new("RGBA", strip.size, "white")
        made.paste(Image.alpha_composite(white, strip.convert("RGBA")), box)
    return made


def _grey_to_rgb(image: Image.Image, full_scale: float | None) -> Image.Image:
    white, clear = full_scale or (1.0 if image.mode == "F" else 65535.0), image.info.get("transparency")
    made, low, high, outside, nowhere = Image.new("RGB", image.size), 0.0, 0.0, 0, 0
    for box in strips(image.size):
        values = np.asarray(image.crop(box), np.float64)
        nowhere += int(np.count_nonzero(~np.isfinite(values)))
        values = np.nan_to_num(values, posinf=0, neginf=0)
        low, high = min(low, values.min()), max(high, values.max())
        outside += int(np.count_nonzero((values < -0.05 * white) | (values > 1.05 * white)))
        levels = (values * (255 / white) + 0.5).clip(0, 255).astype(np.uint8)
        if isinstance(clear, int):  # of a PNG of 16 bits
            levels[values == clear] = 255
        made.paste(Image.fromarray(levels), box)
    black = full_scale is None and image.mode != "F" and high <= 255 and (low, high) != (0, 0)
    most = image.width * image.height / 10
    if nowhere > most:
        raise InputError(f"{nowhere} grey values that are no finite numbers; expected at most a tenth of the pixels")
    if black or outside + nowhere > most:
        raise InputError(
            f"grey values from {low:g} to {high:g}, where {white:g} is white"
            f"{'' if full_scale else ' (the model learned from 8-bit images)'}; expected values of that scale, or an "
            "image of 8 bits"
        )
    return made


def strips(size: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Boxes of whole rows, of about a million pixels each, that make up an image of this (width, height)."""
    width, height = size
    rows = max(1, 2**20 // max(1, width))
    return ((0, top, width, min(top + rows, height)) for top in range(0, height, rows))


def covering(
    image: Image.Image, image_size: tuple[int, int], interpolation: str = "bicubic", crop_pct: float = 1.0
) -> Image.Image:
    """The centre of an image, which keeps its aspect ratio, in ``image_size`` pixels, ``(height, width)``.

    It is scaled until it just covers ``image_size / crop_pct``; the centre is cut out. Sizes are rounded as torchvision
    does it for a square, and as timm does it for others.
    """
    height, width = image_size
    target = math.floor(height / crop_pct), math.floor(width / crop_pct)
    if target[0] == target[1]:
        short, long = min(image.size), max(image.size)
        sides = target[0], int(target[0] * long / short)
        size = sides if image.width <= image.height else sides[::-1]
    else:
        ratio = min(image.height / target[0], image.width / target[1])
        size = round(image.width / ratio), round(image.height / ratio)
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    box, resample = (left, top, left + width, top + height), Image.Resampling[interpolation.upper()]
    if size[0] * size[1] <= LARGEST:
        return image.resize(size, resample).crop(box)
    return _resized_part(image, size, box, resample)


def _resized_part(
    image: Image.Image, size: tuple[int, int], box: tuple[int, int, int, int], resample: Image.Resampling
) -> Image.Image:
    """The pixels of ``image.resize(size, resample).crop(box)``, up to rounding, without the memory that it takes."""
    across, down, width, height = image.width / size[0], image.height / size[1], box[2] - box[0], box[3] - box[1]
    image = image.resize((width, image.height), resample, box=(box[0] * across, 0, box[2] * across, image.height))
    return image.resize((width, height), resample, box=(0, box[1] * down, width, box[3] * down))


# -- checks of values, for the fields of this and of the augmentation --------------------------------------------------


def check(name: str, value: object, holds: bool, expected: str) -> None:
    """Raises :class:`InputError` where it does not hold."""
    if not holds:
        raise InputError(f"{name}: got {brief(value)}, expected {expected}")


def check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    """Raises :class:`InputError` for a word that is not known."""
    if value not in known:
        raise InputError(
            f"{name}: got {brief(value)}, expected one of {listing(known)}{nearest(str(value)[:80], known)}"
        )


def is_part(value: object) -> bool:
    """Whether it is a number from 0 to 1."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def are_numbers(values: Any, count: int, low: float, high: float, *, whole: bool = False) -> bool:
    """Whether it is a tuple of so many numbers between two bounds, these included."""
    kinds = (int,) if whole else (int, float)
    return (
        isinstance(values, tuple)
        and len(values) == count
        and all(type(value) in kinds and low <= value <= high for value in values)
    )
