"""Labelled images: where they come from, which ones, in which order, and how they become tensors."""

from convit.data.folders import open_folder, visible_files
from convit.data.identity import data_digest, describe, digest, first_change, first_changed_name
from convit.data.image_sets import ArrayImages, DataSource, FileImages, ImageSet
from convit.data.images import IMAGE_SUFFIXES, UnreadableImageError, image_size, is_image_name, read_image, to_rgb
from convit.data.sampling import (
    EpochSampler,
    class_balanced_subset,
    permutation,
    share_of_batch,
    shown,
    some_classes,
    stratified_split,
)
from convit.data.scan import BadImage, decoded_bytes, drop, native_size, scan
from convit.data.sources import SOURCE_NAMES, default_root, open_source
from convit.data.transforms import (
    Augmentation,
    Preprocess,
    SampleDataset,
    evaluation_transform,
    seeded,
    training_transform,
)

__all__ = [
    "IMAGE_SUFFIXES",
    "SOURCE_NAMES",
    "ArrayImages",
    "Augmentation",
    "BadImage",
    "DataSource",
    "EpochSampler",
    "FileImages",
    "ImageSet",
    "Preprocess",
    "SampleDataset",
    "UnreadableImageError",
    "class_balanced_subset",
    "data_digest",
    "decoded_bytes",
    "default_root",
    "describe",
    "digest",
    "drop",
    "evaluation_transform",
    "first_change",
    "first_changed_name",
    "image_size",
    "is_image_name",
    "native_size",
    "open_folder",
    "open_source",
    "permutation",
    "read_image",
    "scan",
    "seeded",
    "share_of_batch",
    "shown",
    "some_classes",
    "stratified_split",
    "to_rgb",
    "training_transform",
    "visible_files",
]
