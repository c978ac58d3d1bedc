"""Nearly the same pictures: a perceptual hash finds candidates, an alignment of the two pictures decides.

The hash of a picture (the DCT hash, from its definition): grey, 32 x 32 pixels, their cosine transform

    F[u, v] = a(u) a(v) sum_x sum_y g[x, y] cos(pi (2x + 1) u / 64) cos(pi (2y + 1) v / 64)

and of each F[u, v] with u, v < 8, but F[0, 0], one bit: whether it is above 0. These 63 bits do not change with
brightness and contrast, and little with compression and size. A cropped picture has other bits. So each picture has a
second hash, of its middle 28 x 28 pixels, and a pair is a candidate if any two of its hashes differ in at most
:data:`MOST_BITS` bits, but not if both are of the middle.

Candidates are compared as 16 x 16 pixels: the correlation of the grey values, the best one of those in which up to 3 of
the 32 pixels at the edges of either picture are cut off. From :data:`ALIKE` on they are nearly the same.

Both numbers were chosen by trials that are not in the project: on CIFAR-10, 32 x 32 pixels, among 72 million pairs of
12,000 images 53 reach 0.96, of which about three are different pictures by eye, and none of them is of two classes;
the famous repeated pictures of that data set are the others. Of copies that are recompressed (quality 50), cropped by 2
pixels, or 30% brighter, 99% or more reach it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convit.data.sampling import Draw, permutation
from convit.events import Advanced, Listener, PassBegan, ignore

SIDE = 32
"""Pixels of a side of what is hashed."""
MOST_BITS = 12
"""Hashes of nearly the same pictures differ in at most so many of their 63 bits."""
ALIKE = 0.96
"""The least correlation of nearly the same pictures."""
MOST_ALIKE = 0.995
"""It is raised up to this, where different pictures are usually alike."""
PROMISING = 0.85
"""Below this with cuts to the middle, the others are not tried."""
FLAT = 3.0
"""A picture whose grey values deviate less than this from their mean has nothing to be compared by."""
SAMPLE = 1500
"""Pictures whose pairs show how alike different pictures of this data are."""
ENOUGH = 450
"""So many pictures have 100,000 pairs."""
_DEVIATIONS = 5.5
"""Nearly the same pictures are so many standard deviations above the usual correlation."""
_AT_ONCE = 2**21
"""Pairs of hashes compared at once."""

Thumbs = NDArray[np.uint8]
"""(N, 32, 32) grey values."""


def thumb(grey: Image.Image) -> NDArray[np.uint8]:
    """(32, 32) grey values of a grey picture, of whatever shape: what is hashed."""
    return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0), np.uint8)


def hashes(thumbs: Thumbs) -> NDArray[np.uint64]:
    """(N, 2) the hash of each picture and that of its middle.

    >>> stripes = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (1, 32, 1))
    >>> bool((hashes(stripes) == hashes(stripes // 2 + 50)).all())  # darker, with less contrast
    True
    """
    frequency, place = np.arange(8)[:, None], np.arange(SIDE)
    cosines = np.cos(np.pi * (2 * place + 1) * frequency / (2 * SIDE))
    out = np.empty((len(thumbs), 2), np.uint64)
    powers = np.uint64(1) << np.arange(63, dtype=np.uint64)
    for column, basis in enumerate((cosines, cosines @ _cells(2, 2, SIDE))):
        for start in range(0, len(thumbs), 4096):
            part = thumbs[start : start + 4096].astype(np.float64)
            # Rounded: what is 0 but for the last bits of the sum, as in a picture of stripes, is not above 0.
            found = np.round(basis @ part @ basis.T, 6).reshape(len(part), 64)[:, 1:] > 0
            out[start : start + 4096, column] = (found * powers).sum(axis=1, dtype=np.uint64)
    return out


@dataclass(frozen=True, slots=True)
class NearPairs:
    """Pairs of pictures that are nearly the same."""

    pairs: NDArray[np.int64]
    """(P, 2) indices, the lower one first."""
    likeness: NDArray[np.float64]
    """(P,) their correlations, from ``alike`` to 1."""
    alike: float
    """The least correlation that was taken: more than :data:`ALIKE` where different pictures are that much alike."""


def near_pairs(thumbs: Thumbs, tell: Listener = ignore) -> NearPairs:
    """All pairs of nearly the same pictures. Pictures of one colour have nothing to be compared by, and are in none.

    In time it is proportional to the square of N: about 2 seconds for 10,000 pictures, 1 minute for 60,000.

    Args:
        thumbs: (N, 32, 32), of :func:`thumb`.
        tell: gets the progress.
    """
    shown = np.flatnonzero(thumbs.reshape(len(thumbs), SIDE * SIDE).std(axis=1) >= FLAT)
    some, codes = thumbs[shown], hashes(thumbs[shown])
    most_bits, alike = _limits(some, codes)
    tell(PassBegan("comparing pictures", len(some)))
    blocks = [np.empty((0, 2), np.int64)]
    for rows, found in _candidates(codes, most_bits):
        blocks.append(found)
        tell(Advanced(rows))
    candidates = np.concatenate(blocks)
    likeness = correlation(some, candidates)
    taken = likeness >= alike
    return NearPairs(shown[candidates[taken]], likeness[taken], alike)


def correlation(thumbs: Thumbs, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """(P,) how alike the pictures of each pair are, from -1 to 1: the correlation at the best of the cuts.

    >>> picture = np.random.default_rng(0).integers(0, 256, (1, 32, 32), dtype=np.uint8)
    >>> correlation(np.concatenate((picture, picture // 2)), np.array([[0, 1]])).round(3).tolist()
    [1.0]
    """
    best = np.full(len(pairs), -1.0)
    for start in range(0, len(pairs), 4096):
        part = pairs[start : start + 4096]
        one, other = (thumbs[part[:, side]].astype(np.float32) for side in (0, 1))
        found = _best_of(one, other, [(cut, cut, cut) for cut in (0, 1, 2, 3)])
        near = np.flatnonzero(found >= PROMISING)
        if len(near):
            moved = [(cut, left, top) for cut in (1, 2, 3) for left in (0, cut, 2 * cut) for top in (0, cut, 2 * cut)]
            found[near] = np.maximum(found[near], _best_of(one[near], other[near], moved))
        best[start : start + 4096] = found
    return best


def _best_of(
    one: NDArray[np.float32], other: NDArray[np.float32], cuts: list[tuple[int, int, int]]
) -> NDArray[np.float64]:
    """The best correlation of pictures with cut ones, either way. cuts: in all off a side, and of it left and top."""
    whole = [_normal(_reduced(side, (0, 0, 0))) for side in (one, other)]
    best = np.full(len(one), -1.0)
    for cut in cuts:
        for picture, against in ((one, whole[1]), (other, whole[0])):
            np.maximum(best, (_normal(_reduced(picture, cut)) * against).sum(axis=1), out=best)
    return best


def _reduced(pictures: NDArray[np.float32], cut: tuple[int, int, int]) -> NDArray[np.float32]:
    """(P, 256) 16 x 16 means of what is left of each picture."""
    off, left, top = cut
    across, down = (np.asarray(_cells(start, 2 * off - start, SIDE // 2), np.float32) for start in (left, top))
    rows = pictures.reshape(-1, SIDE) @ across.T  # (P 32, 16)
    turned = rows.reshape(-1, SIDE, SIDE // 2).transpose(0, 2, 1).reshape(-1, SIDE)
    return np.asarray((turned @ down.T).reshape(len(pictures), -1), np.float32)


def _normal(values: NDArray[np.float32]) -> NDArray[np.float32]:
    values = values - values.mean(axis=1, keepdims=True)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6)


def _cells(before: int, behind: int, count: int) -> NDArray[np.float64]:
    """(count, 32) means over ``count`` equal cells of what is left of 32 pixels without some at both ends."""
    edges = np.linspace(before, SIDE - behind, count + 1)
    pixel = np.arange(SIDE)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    weights = np.maximum(overlap, 0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _distance(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """(A, B) bits in which hashes, (A, 2) and (B, 2), differ at least: whole-whole, whole-middle or middle-whole."""
    least = np.bitwise_count(one[:, None, 0] ^ other[None, :, 0])
    for a, b in ((0, 1), (1, 0)):
        np.minimum(least, np.bitwise_count(one[:, None, a] ^ other[None, :, b]), out=least)
    return least


def _candidates(codes: NDArray[np.uint64], most_bits: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Blocks of rows: how many there are, and the candidates (i, j), i < j, with an i of them."""
    start = 0
    while start < len(codes):
        rows = max(1, min(_AT_ONCE // (len(codes) - start), 1024))
        i, j = np.nonzero(_distance(codes[start : start + rows], codes[start:]) <= most_bits)
        yield min(rows, len(codes) - start), np.stack((i, j), axis=1)[i < j].astype(np.int64) + start
        start += rows


def _limits(thumbs: Thumbs, codes: NDArray[np.uint64]) -> tuple[int, float]:
    """How many bits and which correlation to take.

    Photos of many things are seldom alike. Digits, or X-ray images, are: there the pairs of a sample show what is usual
    among different pictures, and nearly the same ones have to be more alike than that.
    """
    drawn = permutation(len(thumbs), 0, Draw.SIZES)[:SAMPLE]
    i, j = np.triu_indices(len(drawn), 1)
    if not len(i):
        return MOST_BITS, ALIKE
    bits = np.sort(_distance(codes[drawn], codes[drawn])[i, j])
    # So many candidates that each can be looked at: one for each picture.
    part = min(1.0, (len(thumbs) + 2000) / (len(thumbs) * (len(thumbs) - 1) / 2))
    most_bits = min(MOST_BITS, int(bits[int(part * (len(bits) - 1))]))
    flat = _normal(_reduced(thumbs[drawn].astype(np.float32), (0, 0, 0)))
    # Fisher's transform of a correlation is about normal, and its upper tail gives the deviation: the upper hundredth,
    # or, of so few pictures that repeated ones could be as many of the pairs, the upper tenth.
    part, deviations = (0.99, 2.3263) if len(drawn) > ENOUGH else (0.9, 1.2816)
    middle, high = np.quantile(np.arctanh(np.clip((flat @ flat.T)[i, j], -0.9999, 0.9999)), [0.5, part])
    usual = float(np.tanh(middle + _DEVIATIONS * (high - middle) / deviations))
    return most_bits, min(max(ALIKE, usual), MOST_ALIKE)
