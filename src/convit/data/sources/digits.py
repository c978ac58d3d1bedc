"""The ``digits`` of scikit-learn: 1797 handwritten digits, 8x8, grey: real ones, and no download.

They are the test set of E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits (1998), UCI Machine
Learning Repository, doi 10.24432/C50P49, under CC BY 4.0. ``digits.npz`` holds them in scikit-learn's order, ``pixels``
(1797, 8, 8) from 0 to 16 and ``targets`` (1797,): 45 kB in place of two libraries of 160 MB that nothing else needs.
"""

from pathlib import Path

import numpy as np

from convit.data.image_sets import ArrayImages
from convit.data.sampling import stratified_split
from convit.data.sources.interface import Opening, Source, SourceKind

_FILE = Path(__file__).with_suffix(".npz")


def _open(data: str, opening: Opening) -> Source:
    """The test split is a fifth of each class, drawn once and for all: no seed or option of a run changes it."""
    with np.load(_FILE, allow_pickle=False) as stored:
        pixels, targets = np.round(stored["pixels"] / 16 * 255).astype(np.uint8), stored["targets"]
    class_names = tuple("0123456789")
    images = ArrayImages(pixels, [f"digits/{i:04d}" for i in range(len(pixels))], targets, class_names)
    train, test = stratified_split(images.targets, 0.2, seed=0)
    splits = {"train": images.subset(train), "test": images.subset(test)}
    return Source(name="digits", root="digits", class_names=class_names, splits=splits, flip=False)


DIGITS = SourceKind(takes=lambda data: data == "digits", open=_open, names=("digits",))
