"""How an image becomes a model's input in evaluation: on NumPy and Pillow, so that an exported file needs no PyTorch.

The one evaluation transform: validation in training, ``convit predict``, ``convit inspect`` and exported files use it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convit.errors import InputError, brief, nearest

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of red, green and blue in ImageNet: most published weights were trained with them."""
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
LONGEST = 8
"""The ends of a picture are cut off before resizing if it is longer than this many times the model's own shape."""


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

    def __post_init__(self) -> None:
        size, part = self.image_size, self.crop_pct
        sides = f"(height, width) in pixels, up to {MOST_SIDE}"
        check("image_size", size, are_numbers(size, 2, 1, MOST_SIDE, whole=True), sides)
        check("mean", self.mean, are_numbers(self.mean, 3, -1e4, 1e4), "three numbers: red, green, blue")
        check("std", self.std, are_numbers(self.std, 3, 1e-6, 1e6), "three numbers above 0: red, green, blue")
        check_choice("interpolation", self.interpolation, INTERPOLATIONS)
        check("crop_pct", part, is_part(part) and part >= LEAST_PART, f"a number from {LEAST_PART} to 1")
        most = 2 * MOST_SIDE
        check("crop_pct", part, max(size) <= most * part, f"at least {max(size) / most:.2g} for {max(size)} pixels")

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
            raise InputError(f"preprocessing: unknown key {_listed(unknown)}; expected {_listed(known)}")
        if missing := [key for key in known if key not in values]:
            raise InputError(f"preprocessing: no key {_listed(missing)}; expected {_listed(known)}")
        fitting: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**fitting)


def prepared(image: Image.Image, preprocess: Preprocess) -> NDArray[np.float32]:
    """An RGB image of any size as the model takes it, ``(3, height, width)``: ``(value / 255 - mean) / std``.

    >>> prepared(Image.new("RGB", (100, 70)), Preprocess(image_size=(32, 48))).shape
    (3, 32, 48)
    """
    image = covering(image, preprocess.image_size, preprocess.interpolation, preprocess.crop_pct)
    pixels = np.asarray(image, dtype=np.float32) / np.float32(255)
    normal = (pixels - np.asarray(preprocess.mean, np.float32)) / np.asarray(preprocess.std, np.float32)
    return np.ascontiguousarray(normal.transpose(2, 0, 1))


def covering(
    image: Image.Image, image_size: tuple[int, int], interpolation: str = "bicubic", crop_pct: float = 1.0
) -> Image.Image:
    """The centre of an image, which keeps its aspect ratio, in ``image_size`` pixels, ``(height, width)``.

    It is scaled until it just covers ``image_size / crop_pct``; the centre is cut out. Sizes are rounded as torchvision
    does it for a square, and as timm does it for others.
    """
    height, width = image_size
    image = _without_far_ends(image, LONGEST * max(height, width) / min(height, width))
    target = math.floor(height / crop_pct), math.floor(width / crop_pct)
    if target[0] == target[1]:
        short, long = min(image.size), max(image.size)
        sides = target[0], int(target[0] * long / short)
        size = sides if image.width <= image.height else sides[::-1]
    else:
        ratio = min(image.height / target[0], image.width / target[1])
        size = round(image.width / ratio), round(image.height / ratio)
    image = image.resize(size, Image.Resampling[interpolation.upper()])
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _without_far_ends(image: Image.Image, limit: float) -> Image.Image:
    """A very long image without its ends, which the crop drops anyway; scaled up, they would take gigabytes."""
    width, height = image.size
    longest = math.ceil(limit * min(width, height))
    if max(width, height) <= longest:
        return image
    left, top = max(width - longest, 0) // 2, max(height - longest, 0) // 2
    return image.crop((left, top, left + min(width, longest), top + min(height, longest)))


# -- checks of values, for the fields of this and of the augmentation --------------------------------------------------


def check(name: str, value: object, holds: bool, expected: str) -> None:
    """Raises :class:`InputError` where it does not hold."""
    if not holds:
        raise InputError(f"{name}: got {brief(value)}, expected {expected}")


def check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    """Raises :class:`InputError` for a word that is not known."""
    if value not in known:
        raise InputError(
            f"{name}: got {brief(value)}, expected one of {_listed(known)}{nearest(str(value)[:80], known)}"
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


def _listed(names: Sequence[str]) -> str:
    return ", ".join(brief(name, 40) for name in names[:8]) + (", ..." if len(names) > 8 else "")
