"""What is white in grey images of more than 8 bits or of floats: found once a data set, from its training images.

A file does not say it: 12 bits of a camera in 16-bit numbers, floats up to 1 or up to 255. Decided image by image, two
images of equal pixels could come out different, so it is one number of the run, kept in its preprocessing.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from PIL import Image

from convit.errors import InputError
from convit.preprocess import is_deep, strips

FULL_SCALES = (1, 255, 1023, 4095, 16383, 65535)
"""Floats and masks; 8, 10, 12, 14 and 16 bits."""
UNKNOWN_SCALE = (
    "grey images of more than 8 bits or of floats: 65535 of whole numbers and 1 of floats is taken for white, as the "
    "model learned from 8-bit images alone"
)
_BEYOND = 1.05
"""Floats that were resized or sharpened go a little beyond their full scale."""
_DARKEST = 1 / 8
"""A data set whose largest value is a smaller part of a full scale is hardly of that scale."""


@dataclass(frozen=True, slots=True)
class Levels:
    """The range of the grey values of images; None where there is no image of the kind."""

    whole: tuple[float, float] | None = None
    """Of images of whole numbers of more than 8 bits."""
    floats: tuple[float, float] | None = None

    @classmethod
    def of(cls, image: Image.Image) -> Self:
        """Those of one image, of any mode; values that are no numbers do not count."""
        if not is_deep(image):
            return cls()
        low, high = np.inf, -np.inf
        for box in strips(image.size):  # a copy of a large image takes as much memory as the image
            values = np.asarray(image.crop(box), np.float64)
            values = values[np.isfinite(values)]
            if values.size:
                low, high = min(low, float(values.min())), max(high, float(values.max()))
        found = (low, high) if low <= high else (0.0, 0.0)
        return cls(floats=found) if image.mode == "F" else cls(whole=found)

    def __or__(self, other: "Levels") -> "Levels":
        """Those of both."""
        return Levels(_both(self.whole, other.whole), _both(self.floats, other.floats))

    def full_scale(self, name: str) -> float | None:
        """The value that is white: the smallest of :data:`FULL_SCALES` that holds every value; None for no image.

        Args:
            name: of the data.

        Raises:
            InputError: no full scale is clear.

        >>> Levels(whole=(0, 3712)).full_scale("xrays"), Levels(floats=(0, 1.02)).full_scale("scans")
        (4095.0, 1.0)
        """
        whole = _scale(name, self.whole, "whole numbers", beyond=1)
        floats = _scale(name, self.floats, "floats", beyond=_BEYOND)
        if whole and floats and whole != floats:
            raise InputError(
                f"{name}: {whole:g} is white in its images of more than 8 bits, {floats:g} in its images of floats; "
                "expected one full scale: convert one kind, or all of them to 8 bits"
            )
        return whole or floats


def _both(one: tuple[float, float] | None, other: tuple[float, float] | None) -> tuple[float, float] | None:
    if one is None or other is None:
        return one or other
    return min(one[0], other[0]), max(one[1], other[1])


def _scale(name: str, levels: tuple[float, float] | None, kind: str, *, beyond: float) -> float | None:
    """The full scale of the images of one kind."""
    if levels is None or levels == (0, 0):
        return None
    low, high = levels
    scale = next((scale for scale in FULL_SCALES if high <= scale * beyond), None)
    if scale is None or high < scale * _DARKEST or low < (1 - beyond) * scale:
        raise InputError(
            f"{name}: its grey images have {kind} from {low:g} to {high:g}, and which value is white is not clear; "
            f"expected 0 to one of {', '.join(map(str, FULL_SCALES))}, or --full-scale NUMBER, or images of 8 bits"
        )
    return float(scale)
