"""Labelled images: where they come from, which ones, in which order, and how they become tensors.

The entry point is :func:`convit.data.select.select`. Only the code that makes tensors needs torch; it is imported when
one of its names is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from convit.data.decoding import UnreadableImageError
from convit.data.image_sets import ArrayImages, FileImages, ImageSet
from convit.data.images import IMAGE_SUFFIXES, image_size, is_image_name, read_image, to_rgb
from convit.data.record import describe, first_change, first_changed_name
from convit.data.sampling import (
    Draw,
    EpochSampler,
    class_balanced_subset,
    permutation,
    share_of_batch,
    shown,
    stratified_split,
)
from convit.data.scan import BadImage, drop
from convit.data.sources import SOURCE_NAMES, Source, open_source

if TYPE_CHECKING:
    from convit.data.transforms import (
        Augmentation,
        Preprocess,
        SampleDataset,
        evaluation_transform,
        normalised,
        seeded,
        training_transform,
    )

__all__ = [
    "IMAGE_SUFFIXES",
    "SOURCE_NAMES",
    "ArrayImages",
    "Augmentation",
    "BadImage",
    "Draw",
    "EpochSampler",
    "FileImages",
    "ImageSet",
    "Preprocess",
    "SampleDataset",
    "Source",
    "UnreadableImageError",
    "class_balanced_subset",
    "describe",
    "drop",
    "evaluation_transform",
    "first_change",
    "first_changed_name",
    "image_size",
    "is_image_name",
    "normalised",
    "open_source",
    "permutation",
    "read_image",
    "seeded",
    "share_of_batch",
    "shown",
    "stratified_split",
    "to_rgb",
    "training_transform",
]


def __getattr__(name: str) -> Any:
    if name in __all__:  # one of those that need torch: the others are here
        return getattr(importlib.import_module("convit.data.transforms"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
