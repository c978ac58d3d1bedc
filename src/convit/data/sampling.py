"""Which images, and in which order: pure functions of a seed, free of any global random state and of torch.

Every draw here is ``permutation(n, seed, tag, ...)``. The tags keep draws for different purposes independent.
"""

from collections.abc import Iterator
from enum import IntEnum, unique

import numpy as np
from numpy.typing import NDArray

from convit.errors import InputError


@unique
class Draw(IntEnum):
    """What is drawn, as part of the key of each draw. No two kinds of draws share a number."""

    SPLIT = 1
    SUBSET = 2
    EPOCH = 3
    AUGMENTATION = 4
    BALANCED = 5
    SHARES = 6
    SIZES = 7
    FOLDS = 8
    START = 101
    STEP = 102


Indices = NDArray[np.int64]


def permutation(n: int, *key: int) -> Indices:
    """(n,) a random order of 0 .. n-1, a function of the key alone: ``argsort(PCG64(key))``.

    The order is that of raw 64-bit draws, not of ``Generator.permutation``: NumPy keeps the bit streams the same
    between versions but not the methods, and after an upgrade a run must resume and a test split stay the same.

    >>> permutation(5, 0).tolist() == permutation(5, 0).tolist()
    True
    """
    if min(key) < 0:
        raise InputError(f"seed: {min(key)}; expected an integer of at least 0")
    return np.argsort(np.random.PCG64(list(key)).random_raw(n), kind="stable").astype(np.int64)


def stratified_split(targets: Indices, fraction: float, seed: int) -> tuple[Indices, Indices]:
    """Hold out a fraction of every class.

    A class of n images gives ``round(fraction * n)``, but at least 1 and at most n - 1, to those held out; a
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
        held_out[members[permutation(len(members), seed, Draw.SPLIT, int(label))[:count]]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def folds_of(targets: Indices, folds: int, seed: int) -> Indices:
    """(N,) the fold of each image, 0 to ``folds - 1``: every class is dealt out in random order, so each fold has
    ``n / folds`` of its n images, rounded up or down, and each image is in one fold.

    Args:
        targets: (N,) class of each image.
        folds: 2 up to the size of the smallest class.
        seed: 0 or more.

    >>> np.bincount(folds_of(np.array([0, 0, 0, 1, 1, 1, 1]), 3, seed=0)).tolist()
    [3, 2, 2]
    """
    out = np.empty(len(targets), dtype=np.int64)
    first = 0
    for label in np.unique(targets):
        members = np.flatnonzero(targets == label)
        order = members[permutation(len(members), seed, Draw.FOLDS, int(label))]
        out[order] = (first + np.arange(len(members))) % folds
        first += len(members)  # or the first folds would get the odd ones of every class
    return out


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
        chosen.append(members[permutation(len(members), seed, Draw.SUBSET, int(label))[:count]])
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, dtype=np.int64)


def balanced_order(targets: Indices, count: int, *key: int) -> Indices:
    """(count,) indices in random order, equally many of every class, or one more of some.

    Each class goes through its own images in random order, repeatedly if needed: none is there twice before all of
    its class are there once. The result is a function of (targets, count, key). Classes without images are left out.

    Args:
        targets: (N,) class of each image, at least one.
        count: how many indices.
        key: what decides the draws; numbers from 0.

    >>> order = balanced_order(np.array([0, 0, 0, 0, 1]), 6, 7)
    >>> np.bincount(np.array([0, 0, 0, 0, 1])[order]).tolist()
    [3, 3]
    """
    labels = np.unique(targets)
    share, more = divmod(count, len(labels))
    gets_more = set(labels[permutation(len(labels), *key, Draw.SHARES)[:more]].tolist())
    drawn = []
    for label in labels.tolist():
        members = np.flatnonzero(targets == label)
        wanted = share + (label in gets_more)
        rounds = range(-(-wanted // len(members)))
        order = [members[permutation(len(members), *key, Draw.BALANCED, label, again)] for again in rounds]
        drawn.append(np.concatenate([*order, members[:0]])[:wanted])
    return np.concatenate(drawn)[permutation(count, *key, Draw.EPOCH)]


def occurrence(indices: Indices) -> Indices:
    """(N,) how often each index has been there before.

    >>> occurrence(np.array([4, 2, 4, 4, 2])).tolist()
    [0, 0, 1, 2, 1]
    """
    order = np.argsort(indices, kind="stable")
    _, first, counts = np.unique(indices[order], return_index=True, return_counts=True)
    before = np.empty(len(indices), dtype=np.int64)
    before[order] = np.arange(len(indices)) - np.repeat(first, counts)
    return before


Key = tuple[int, ...]
"""``(epoch, index)`` of a sample; from the second time on that an epoch shows an image, ``(epoch, index, times)``."""


class EpochSampler:
    """The keys ``(epoch, index)`` of one epoch, in an order that is a function of (seed, epoch) alone.

    Position p of epoch e holds ``permutation(length, seed, 3, e)[p]``. There is no
    state but the epoch and the position to begin at, so a run resumes in the middle of an epoch from these two numbers.
    Meant for :class:`convit.data.SampleDataset`, which draws its augmentation from the same key: an image that an epoch
    shows n times has n different keys.

    Args:
        length: how many images there are.
        seed: 0 or more.
        repeats: show each drawn image this many times in a row (repeated augmentation, Hoffer et al. 2020, as in
            DeiT): an epoch has ``length // repeats`` different images.
        balance: (length,) the class of each image: draw by :func:`balanced_order`, all classes equally often.
        share: ``(batch_size, rows)``: only the samples in these rows of every whole batch of ``batch_size`` samples;
            :func:`share_of_batch` gives the rows of one of several processes.

    >>> sampler = EpochSampler(5, seed=0)
    >>> whole = list(sampler)
    >>> sampler.set_epoch(0, start=3)
    >>> list(sampler) == whole[3:], len(sampler)
    (True, 2)
    >>> sorted(EpochSampler(5, seed=0, repeats=2))
    [(0, 3), (0, 3, 1), (0, 4), (0, 4, 1)]
    """

    def __init__(
        self,
        length: int,
        *,
        seed: int,
        repeats: int = 1,
        balance: Indices | None = None,
        share: tuple[int, Indices] | None = None,
    ) -> None:
        if seed < 0:
            raise InputError(f"seed: {seed}; expected an integer of at least 0")
        if repeats < 1 or (repeats > length and repeats > 1):
            raise InputError(f"repeats: {repeats}; expected 1 to the {length} images")
        self.images = length
        self.length = shown(length, repeats)
        self.seed = seed
        self.repeats = repeats
        self.balance = balance
        self.share = share
        self.epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Make the next iteration that of ``epoch``, without its first ``start`` samples (of all, not of the share)."""
        if epoch < 0 or not 0 <= start <= self.length:
            raise InputError(
                f"epoch {epoch}, start {start}; expected an epoch from 0 and a start from 0 to {self.length}"
            )
        self.epoch = epoch
        self.start = start

    def keys(self, epoch: int) -> list[Key]:
        """All keys of an epoch, from its beginning."""
        order = np.repeat(self._drawn(epoch), self.repeats)
        return [
            (epoch, index, times) if times else (epoch, index)
            for index, times in zip(order.tolist(), occurrence(order).tolist(), strict=True)
        ]

    def _drawn(self, epoch: int) -> Indices:
        """The images of an epoch in their order, without the repeats."""
        count = self.length // self.repeats
        if self.balance is not None:
            return balanced_order(self.balance, count, self.seed, Draw.BALANCED, epoch)
        return permutation(self.images, self.seed, Draw.EPOCH, epoch)[:count]

    def __iter__(self) -> Iterator[Key]:
        keys = self.keys(self.epoch)[self.start :]
        if self.share is None:
            yield from keys
            return
        batch_size, rows = self.share
        for first in range(0, len(keys) // batch_size * batch_size, batch_size):
            yield from (keys[first + row] for row in rows.tolist())

    def __len__(self) -> int:
        """How many keys an iteration gives from ``start`` on."""
        left = self.length - self.start
        return left if self.share is None else left // self.share[0] * len(self.share[1])


def share_of_batch(batch_size: int, rank: int, processes: int) -> Indices:
    """(batch_size / processes,) the rows of a batch that are those of one process.

    Mixup mixes row i with row ``batch_size - 1 - i``. So a process has rows of the first half and, behind them, their
    partners in the second, in an order in which the same rule pairs the same images.

    Args:
        batch_size: a multiple of twice the processes, or any number for one process.
        rank: which process, from 0.
        processes: how many there are.

    >>> share_of_batch(8, 0, 2).tolist(), share_of_batch(8, 1, 2).tolist()
    ([0, 1, 6, 7], [2, 3, 4, 5])
    """
    if processes == 1:
        return np.arange(batch_size)
    assert batch_size % (2 * processes) == 0
    half = batch_size // (2 * processes)
    first = np.arange(rank * half, (rank + 1) * half)
    return np.concatenate((first, batch_size - 1 - first[::-1]))


def shown(images: int, repeats: int) -> int:
    """How many samples an epoch of so many images has, each shown ``repeats`` times.

    >>> shown(15, 1), shown(16, 3)
    (15, 15)
    """
    return images // repeats * repeats
