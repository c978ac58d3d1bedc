"""Faults that need no model: repeated pictures, classes that are too small, pictures that are unlike the others."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from convit.checks.measuring import Measured
from convit.checks.near import FLAT, NearPairs
from convit.checks.pictures import Pictures
from convit.data.duplicates import same_pictures

FEW = 10
"""A class of fewer images to learn from is too small."""
SMALL_PART = 10
"""So is one of fewer than this part of the median class."""
FAR = 5.0
"""A picture is unlike the others at so many robust standard deviations from the median."""
LEAST_SIZE = 3.0
"""Powers of two by which an odd size is at least above or below the median number of pixels."""
LEAST_SHAPE = 1.5
"""The same of width over height."""
LEAST_SHARP = 1.0
"""The same of sharpness."""
FAR_IN_SHARPNESS = 4.0
"""Robust standard deviations of the logarithm of sharpness at which a picture is blurred; photos vary much in it."""
DARK, BRIGHT = 30.0, 225.0
"""Mean grey values, 0 to 255, below and above which a picture is too dark or too bright, if it is unlike the others."""
FAR_IN_LIGHT = 2.5
"""For this, at so many robust standard deviations from the median: brightness has bounds."""


@dataclass(frozen=True, slots=True)
class Group:
    """The same picture, or nearly the same, several times."""

    images: tuple[int, ...]
    likeness: float
    """1 if they are the same to the byte; else the least correlation of the pairs that link them."""
    splits: bool
    """Whether they are in several splits: accuracy on them says too much."""
    classes: bool
    """Whether they are in several classes: one of the labels is wrong, or the classes are hard to tell apart."""


@dataclass(frozen=True, slots=True)
class OddPicture:
    """A picture unlike the others."""

    image: int
    kind: Literal["size", "brightness", "blur"]
    why: str
    distance: float
    """How far it is from the median, in robust standard deviations."""


@dataclass(frozen=True, slots=True)
class SmallClass:
    """A class with too few images."""

    name: str
    counts: Mapping[str, int]
    """By split."""
    why: str


# -- repeated pictures -------------------------------------------------------------------------------------------------


def exact_groups(pictures: Pictures, measured: Measured) -> list[Group]:
    """Pictures whose files are the same to the byte; those across splits or classes first."""
    contents = {split: images.contents() for split, images in pictures.sets.items()}
    found = ([pictures.number[place] for place in same] for same in same_pictures(pictures.sets, contents))
    groups = [[i for i in same if measured.decoded[i]] for same in found]
    return _sorted(Group(tuple(same), 1.0, *pictures.across(same)) for same in groups if len(same) > 1)


def firsts(count: int, exact: Iterable[Group]) -> NDArray[np.int64]:
    """(N,) for each image the first one of those that are the same to the byte: itself as a rule."""
    first = np.arange(count)
    for group in exact:
        first[list(group.images)] = min(group.images)
    return first


def near_groups(pictures: Pictures, exact: Sequence[Group], near: NearPairs) -> list[Group]:
    """Pictures that are linked by pairs of nearly the same ones, with their exact copies.

    Args:
        pictures: the images.
        exact: groups of the same ones.
        near: pairs of those that are left if one is taken of each of these groups.
    """
    first = firsts(len(pictures), exact)
    root: dict[int, int] = {}

    def root_of(i: int) -> int:
        while root.setdefault(i, i) != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    for a, b in near.pairs.tolist():
        root[root_of(b)] = root_of(a)
    members: dict[int, list[int]] = {}
    for i in np.flatnonzero(np.isin(first, list(root))).tolist():
        members.setdefault(root_of(int(first[i])), []).append(i)
    least: dict[int, float] = {}
    for (a, _), likeness in zip(near.pairs.tolist(), near.likeness.tolist(), strict=True):
        least[root_of(a)] = min(least.get(root_of(a), 1.0), likeness)
    return _sorted(Group(tuple(same), least[r], *pictures.across(same)) for r, same in members.items())


def _sorted(groups: Iterable[Group]) -> list[Group]:
    """Across splits first, then across classes, then the most alike."""
    return sorted(groups, key=lambda group: (not group.splits, not group.classes, -group.likeness, group.images))


# -- classes -----------------------------------------------------------------------------------------------------------


def small_classes(pictures: Pictures, measured: Measured) -> list[SmallClass]:
    """Classes with too few images that decode, the smallest first."""
    splits = list(dict.fromkeys(pictures.splits))
    counts = {split: np.zeros(len(pictures.class_names), np.int64) for split in splits}
    for i in np.flatnonzero(measured.decoded).tolist():
        counts[pictures.splits[i]][pictures.targets[i]] += 1
    learned = counts.get("train", counts.get("all", np.zeros(len(pictures.class_names), np.int64)))
    median = float(np.median(learned))
    found = []
    for label in np.argsort(learned, kind="stable").tolist():
        have = int(learned[label])
        lacking = [split for split in splits if split in ("val", "test") and not counts[split][label]]
        whys = []
        if have < FEW:
            whys.append(f"{have} to learn from, expected at least {FEW}")
        elif have * SMALL_PART < median:
            whys.append(f"{have} to learn from, half of the classes have {median:.0f} or more")
        if lacking:
            whys.append(f"none in {' and '.join(lacking)}")
        if whys:
            by_split = {split: int(counts[split][label]) for split in splits}
            found.append(SmallClass(pictures.class_names[label], by_split, "; ".join(whys)))
    return found


# -- pictures unlike the others ----------------------------------------------------------------------------------------


def odd_pictures(measured: Measured) -> list[OddPicture]:
    """Pictures far from the median in size, shape, brightness or sharpness; of each kind the farthest first.

    Far is more than :data:`FAR` robust standard deviations (1.4826 times the median deviation from the median), and
    more than a least difference, without which in pictures of one size every other size would be odd.
    """
    there = np.flatnonzero(measured.decoded)
    if not len(there):
        return []
    width, height = measured.size[there].T.astype(np.float64)
    dull, light = measured.contrast[there] < FLAT, measured.brightness[there]
    found = []
    for values, least, words in (
        (np.log2(width * height), LEAST_SIZE, ("few pixels", "many pixels")),
        (np.log2(width / height), LEAST_SHAPE, ("narrow", "wide")),
    ):
        for at, deviation in _far(values, least):
            why = f"{width[at]:.0f} x {height[at]:.0f}, {words[deviation > 0]} beside the others"
            found.append(OddPicture(int(there[at]), "size", why, abs(deviation)))
    away = np.abs(light - np.median(light)) / _spread(light)
    for at in np.flatnonzero(dull | (((light < DARK) | (light > BRIGHT)) & (away >= FAR_IN_LIGHT))).tolist():
        kind = "one colour" if dull[at] else "dark" if light[at] < DARK else "bright"
        found.append(OddPicture(int(there[at]), "brightness", f"{kind}, mean grey {light[at]:.0f}", float(away[at])))
    sharp = np.where(dull, np.nan, measured.sharpness[there])
    for at, deviation in _far(np.log2(np.maximum(sharp, 1e-9)), LEAST_SHARP, FAR_IN_SHARPNESS):
        if deviation < 0:
            why = f"sharpness {sharp[at]:.2g}, half of the others have {np.nanmedian(sharp):.2g} or more"
            found.append(OddPicture(int(there[at]), "blur", why, -deviation))
    return sorted(found, key=lambda odd: (odd.kind, -odd.distance, odd.image))


def _far(values: NDArray[np.float64], least: float, far: float = FAR) -> list[tuple[int, float]]:
    """Where values are far from their median, and how far, in robust standard deviations. NaN is nowhere."""
    known = values[np.isfinite(values)]
    if not len(known):
        return []
    off, spread = values - np.median(known), max(_spread(known), least / far)
    return [(int(at), float(off[at] / spread)) for at in np.flatnonzero(np.abs(off) >= far * spread)]


def _spread(values: NDArray[np.float64]) -> float:
    """The robust standard deviation."""
    return max(1.4826 * float(np.median(np.abs(values - np.median(values)))), 1e-9)
