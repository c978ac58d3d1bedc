"""The one pass over the images of a run: checks them, learns their grey values, and keeps their copies."""

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convit.data.copies import ENTRY, Copies
from convit.data.full_scale import Levels
from convit.data.image_sets import NO_STAMP, ImageSet, Stamp
from convit.data.packs import Packs, is_young
from convit.data.scan import BadImage, in_threads, seen_image
from convit.errors import counted
from convit.events import Advanced, Listener, PassBegan, Said

MOST_VERIFIED = 1 << 30
"""Bytes of copies that are compared with their checksums before a run. Of more, each is when it is read, and made anew
if it is damaged."""


@dataclass(slots=True)
class Known:
    """What is known of images, from packs and from decoding the others."""

    bad: list[BadImage] = field(default_factory=list)
    """Those that do not decode."""
    levels: Levels = field(default_factory=Levels)
    checksums: dict[str, str] = field(default_factory=dict)
    """By name, of images that may be the same as others: those of equal :meth:`ImageSet.contents`."""


def keep(parts: Sequence[tuple[ImageSet, Packs]], what: str, tell: Listener) -> Known:
    """Makes the copies that no pack has, and learns what is wrong with the images on the way.

    An image that a pack knows is not opened: its name and its stamp are compared.

    Args:
        parts: images, and where their copies are kept.
        what: how the pass is called; it is told if there is something to decode.
        tell: the listener that gets the progress.
    """
    known = Known()
    work = []
    for images, packs in parts:
        stamps = images.stamps() if packs.limit else None
        copies = packs.copies(images, tell, known=stamps)
        todo = _to_decode(copies, packs, tell)
        work.append((copies, packs, stamps or [NO_STAMP] * len(images), todo))
        done = np.delete(np.arange(len(images)), todo)
        known.levels |= _levels_of(copies.entries[done])
        sums = copies.entries["checksum"]
        known.checksums |= {images.names[i]: sums[i].decode() for i in done.tolist() if sums[i]}
    if any(len(todo) for *_, todo in work):
        tell(PassBegan(what, sum(len(todo) for *_, todo in work)))
    alike = Counter(stamp[0] for _, _, stamps, _ in work for stamp in stamps)
    for copies, packs, stamps, todo in work:
        _decode(copies, packs, stamps, todo, alike, known, tell)
    return known


def _decode(
    copies: Copies,
    packs: Packs,
    stamps: Sequence[Stamp],
    todo: NDArray[np.int64],
    alike: Mapping[int, int],
    known: Known,
    tell: Listener,
) -> None:
    """Decodes images, keeps their copies, and adds to what is known.

    alike: how many images have the first number of a stamp, which is that of :meth:`ImageSet.contents` as a rule.
    """
    images = copies.images

    def decoded(index: int) -> BadImage | tuple[Levels, Any, bytes | None]:
        found = seen_image(images, index, copies.way.side)
        if isinstance(found, BadImage):
            return found
        levels, rgb = found
        entry, pixels, young = np.zeros((), ENTRY), None, is_young(stamps[index])
        entry["stamp"], entry["young"] = stamps[index], young
        if levels != Levels():
            entry["deep"] = 1 if levels.whole else 2
            entry["low"], entry["high"] = levels.whole or levels.floats or (0.0, 0.0)
            entry["full_scale"] = -1.0 if images.full_scale is None else images.full_scale
        if stamps[index] != NO_STAMP and (young or alike[stamps[index][0]] > 1):
            entry["checksum"] = images.checksum(index).encode()
        if rgb is not None and stamps[index] != NO_STAMP:
            copy = copies.way(rgb)
            pixels = copy.tobytes()
            entry["width"], entry["height"], entry["crc"] = *copy.size, zlib.crc32(pixels)
        return levels, entry, pixels

    with packs.writing(tell) as writer:
        for index, found in zip(todo.tolist(), in_threads(decoded, todo.tolist()), strict=True):
            tell(Advanced(1))
            if isinstance(found, BadImage):
                known.bad.append(found)
                continue
            levels, entry, pixels = found
            known.levels |= levels
            if entry["checksum"]:
                known.checksums[images.names[index]] = entry["checksum"].item().decode()
            if stamps[index] != NO_STAMP and images.stamp(index) == stamps[index]:  # else it was written meanwhile
                writer.add(images.names[index], entry, pixels)


def _to_decode(copies: Copies, packs: Packs, tell: Listener) -> NDArray[np.int64]:
    """The images that no pack knows, those whose copy is lacking or damaged, and those of another full scale."""
    entries = copies.entries
    wanted = ~copies.kept & ((entries["deep"] == 0) | (copies.images.full_scale is not None))
    damaged, kept = np.zeros(len(copies), dtype=bool), np.flatnonzero(copies.kept)
    if 3 * (entries["width"][kept].astype(np.int64) * entries["height"][kept]).sum() <= MOST_VERIFIED:
        damaged[kept] = [copies.kept_pixels(index) is None for index in kept.tolist()]
    if damaged.any():
        number = counted(damaged.sum(), "copy", "copies")
        tell(Said(f"{packs.folder}: {number} of images damaged: decoded again"))
    # A copy that did not fit is made if there is room now, and not decoded at every start only to be left out again.
    lacking = wanted & (copies.which >= 0) & (entries["deep"] == 0)
    if lacking.any():
        sizes = np.where(lacking, 3 * entries["width"].astype(np.int64) * entries["height"], 0)
        wanted &= ~lacking | (np.cumsum(sizes) <= packs.room())
    todo: NDArray[np.int64] = np.flatnonzero((copies.which < 0) | wanted | damaged)
    return todo


def _levels_of(entries: NDArray[Any]) -> Levels:
    """The grey values of all the images."""
    ranges = []
    for deep in (1, 2):
        of_kind = entries[entries["deep"] == deep]
        ranges.append((float(of_kind["low"].min()), float(of_kind["high"].max())) if len(of_kind) else None)
    return Levels(*ranges)
