"""Which images, and in which order: pure functions of a seed, free of any global random state.

Every draw here is ``permutation(n, seed, tag, ...)``. The tags keep draws for different purposes independent.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from convit.data.image_sets import DataSource
from convit.errors import InputError

_SPLIT, _SUBSET, _EPOCH, _CLASSES = 1, 2, 3, 4

Indices = NDArray[np.int64]


def permutation(n: int, *key: int) -> Indices:
    """(n,) a random order of 0 .. n-1, a function of the key alone: ``argsort(PCG64(key))``.

    The order is that of raw 64-bit draws, not of ``Generator.permutation``: NumPy keeps the bit streams the same
    between versions but not the methods, and after an upgrade a run must resume and a test part stay the same.

    >>> permutation(5, 0).tolist() == permutation(5, 0).tolist()
    True
    """
    if min(key) < 0:
        raise InputError(f"seed: {min(key)}; expected an integer of at least 0")
    return np.argsort(np.random.PCG64(list(key)).random_raw(n), kind="stable").astype(np.int64)


def stratified_split(targets: Indices, fraction: float, seed: int) -> tuple[Indices, Indices]:
    """Hold out a fraction of every class.

    A class of n images gives ``round(fraction * n)``, but at least 1 and at most n - 1, to the part that is held out; a
    class with a single image keeps it. Which ones depends on (seed, class, n) alone: other classes make no difference.

    Args:
        targets: (N,) class of each image.
        fraction: between 0 and 1, both excluded.
        seed: 0 or more.

    Returns:
        ``(kept, held_out)``, sorted indices that together are 0 .. N-1.

    >>> kept, held_out = stratified_split(np.array([0, 0, 0, 0, 0, 1]), 0.4, seed=0)
    >>> len(kept), len(held_out), 5 in kept
    (4, 2, True)
    """
    if not 0 < fraction < 1:
        raise InputError(f"fraction: {fraction}; expected a number between 0 and 1")
    held_out = np.zeros(len(targets), dtype=bool)
    for label in np.unique(targets):
        members = np.flatnonzero(targets == label)
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        held_out[members[permutation(len(members), seed, _SPLIT, int(label))[:count]]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def class_balanced_subset(
    targets: Indices, *, fraction: float | None = None, per_class: int | None = None, seed: int
) -> Indices:
    """Draw the same fraction, or the same number, of every class.

    Subsets of one seed are nested: a smaller one is part of every larger one.

    Args:
        targets: (N,) class of each image.
        fraction: above 0 and up to 1; ``round(fraction * n)`` images of each class, at least 1. Or else
        per_class: 1 up to the size of the smallest class.
        seed: 0 or more.

    Returns:
        Sorted indices.

    >>> class_balanced_subset(np.array([0, 1, 0, 1]), per_class=2, seed=0).tolist()
    [0, 1, 2, 3]
    """
    if (fraction is None) == (per_class is None):
        raise InputError(f"fraction {fraction} and per_class {per_class}; expected exactly one of the two")
    if fraction is not None and not 0 < fraction <= 1:
        raise InputError(f"fraction: {fraction}; expected a number above 0 and up to 1")
    smallest = min(np.unique(targets, return_counts=True)[1], default=0)
    if per_class is not None and not 1 <= per_class <= smallest:
        raise InputError(f"per_class: {per_class}; expected 1 to {smallest}, the size of the smallest class")
    chosen = []
    for label in np.unique(targets):
        members = np.flatnonzero(targets == label)
        count = per_class if fraction is None else max(round(fraction * len(members)), 1)
        chosen.append(members[permutation(len(members), seed, _SUBSET, int(label))[:count]])
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, dtype=np.int64)


def some_classes(source: DataSource, count: int, seed: int) -> DataSource:
    """The source with ``count`` of its classes, drawn by seed, and their images alone.

    Draws of one seed are nested: fewer classes are among the more.

    Raises:
        InputError: more classes than there are.
    """
    if not 2 <= count <= len(source.class_names):
        raise InputError(f"classes: got {count}, expected 2 to {len(source.class_names)}, the classes of {source.name}")
    drawn = np.sort(permutation(len(source.class_names), seed, _CLASSES)[:count])
    names = tuple(source.class_names[label] for label in drawn)
    parts = {
        part: images.subset(np.flatnonzero(np.isin(images.targets, drawn))).with_classes(names)
        for part, images in source.parts.items()
    }
    return replace(source, class_names=names, parts=parts)


class EpochSampler(Sampler[tuple[int, int]]):
    """The keys ``(epoch, index)`` of one epoch, in an order that is a function of (seed, epoch) alone.

    Position p of epoch e holds ``permutation(length, seed, 3, e)[p]``, or p itself without shuffling. There is no
    state but the epoch and the position to begin at, so a run resumes in the middle of an epoch from these two numbers.
    Meant for :class:`convit.data.SampleDataset`, which draws its augmentation from the same key.

    >>> sampler = EpochSampler(5, seed=0)
    >>> whole = list(sampler)
    >>> sampler.set_epoch(0, start=3)
    >>> list(sampler) == whole[3:], len(sampler)
    (True, 2)
    """

    def __init__(self, length: int, *, seed: int, shuffle: bool = True) -> None:
        if seed < 0:
            raise InputError(f"seed: {seed}; expected an integer of at least 0")
        self.length = length
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Make the next iteration that of ``epoch``, without its first ``start`` samples."""
        if epoch < 0 or not 0 <= start <= self.length:
            raise InputError(
                f"epoch {epoch}, start {start}; expected an epoch from 0 and a start from 0 to {self.length}"
            )
        self.epoch = epoch
        self.start = start

    def keys(self, epoch: int) -> list[tuple[int, int]]:
        """All keys of an epoch, from its beginning."""
        order = permutation(self.length, self.seed, _EPOCH, epoch) if self.shuffle else np.arange(self.length)
        return [(epoch, index) for index in order.tolist()]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        yield from self.keys(self.epoch)[self.start :]

    def __len__(self) -> int:
        """How many keys an iteration gives from ``start`` on."""
        return self.length - self.start
