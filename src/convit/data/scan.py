"""Checks the images before a run: which cannot be decoded, and how large they are."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convit.data.full_scale import Levels
from convit.data.image_sets import ImageSet
from convit.data.images import named_rgb
from convit.data.sampling import Draw, permutation
from convit.errors import InputError, counted, listing
from convit.events import Advanced, Listener, PassBegan

T = TypeVar("T")

LARGE = 2**24
"""Images of more pixels are decoded one at a time: a large one may take more than a gigabyte."""
SAMPLE = 200
"""Sizes are those of at most so many images."""


@dataclass(frozen=True)
class BadImage:
    """An image that does not decode: its name in the set, and what is wrong with it."""

    name: str
    reason: str


def look(
    images: ImageSet, what: str, tell: Listener, measure: Callable[[int, Image.Image], None] | None = None
) -> tuple[list[BadImage], Levels]:
    """Decodes every image fully; tells that ``what`` began and how it goes on.

    Args:
        images: what to decode.
        what: what this pass is called.
        tell: receives the events.
        measure: called with the index and the RGB pixels of each image that can be decoded, by one of several threads;
            where the full scale is not known yet, not of those of more than 8 bits.

    Returns:
        The images that fail, in the order of the set; and the grey values of the others.
    """

    def seen(index: int) -> BadImage | Levels:
        found = seen_image(images, index)
        if isinstance(found, BadImage):
            return found
        levels, rgb = found
        if measure and rgb is not None:
            measure(index, rgb)
        return levels

    tell(PassBegan(what, len(images)))
    bad, levels = [], Levels()
    for found in in_threads(seen, range(len(images))):
        if isinstance(found, BadImage):
            bad.append(found)
        else:
            levels |= found
        tell(Advanced(1))
    return bad, levels


_ALONE = threading.Lock()


def seen_image(images: ImageSet, index: int, side: int | None = None) -> BadImage | tuple[Levels, Image.Image | None]:
    """The grey values of an image and its RGB pixels, or what is wrong with it.

    Args:
        images, index: which image.
        side: as far as a JPEG is reduced (:func:`convit.data.decoding.opened`).

    Returns:
        A pair; its second part is None for grey values of which no full scale is known.
    """
    try:
        with _ALONE if np.prod(images.size(index)) > LARGE else nullcontext():
            image = images.stored(index, side)
            levels = Levels.of(image)
            if levels != Levels() and images.full_scale is None:
                return levels, None
            return levels, named_rgb(image, images.full_scale, images.where(index))
    except InputError as error:
        return BadImage(images.names[index], str(error).removeprefix(f"{images.where(index)}: "))


def in_threads(do: Callable[[int], T], items: Iterable[int]) -> Iterator[T]:
    """What ``do`` gives for each item, in their order, by one thread for each CPU, up to 8: decoders run outside
    Python's lock. Few results wait at a time: they may be large."""
    count = min(os.cpu_count() or 1, 8)
    pool, waiting = ThreadPoolExecutor(count), deque[Future[T]]()
    try:
        for item in items:
            waiting.append(pool.submit(do, item))
            if len(waiting) > 4 * count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt does not wait for the rest


def refuse_bad(name: str, bad: Sequence[BadImage]) -> None:
    """Raises :class:`InputError` if there are images that do not decode. name: of the data."""
    if bad:
        shown = "; ".join(f"{image.name} ({image.reason})" for image in bad[:3])
        more = f"; and {len(bad) - 3} more" if len(bad) > 3 else ""
        files = counted(len(bad), "file does", "files do")
        raise InputError(f"{name}: {files} not decode: {shown}{more}; mend them, or leave them out with --skip-bad")


def without(images: ImageSet, bad: Sequence[BadImage]) -> ImageSet:
    """The set without the bad images."""
    names = {image.name for image in bad}
    return images.subset([i for i, name in enumerate(images.names) if name not in names])


def drop(images: ImageSet, bad: Sequence[BadImage]) -> ImageSet:
    """The set without the bad images. Raises :class:`InputError` if that leaves a class with none."""
    left = without(images, bad)
    emptied = np.flatnonzero((images.counts() > 0) & (left.counts() == 0))
    if len(emptied):
        raise InputError(
            f"no image that decodes in class {listing(images.class_names[label] for label in emptied)}; "
            "expected at least one in each class"
        )
    return left


def shorter_sides(images: ImageSet) -> NDArray[np.int64]:
    """Length in pixels of the shorter side of up to 200 images, drawn by seed 0; reads headers only.

    Images whose headers cannot be read are left out: :func:`look` finds them.

    Raises:
        InputError: none of them can be, or there is no image.
    """
    if not len(images):
        raise InputError("no image; expected at least one to take the native size from")
    found, fault = [], None
    for index in permutation(len(images), 0, Draw.SIZES)[:SAMPLE].tolist():
        try:
            found.append(min(images.size(index)))
        except InputError as error:
            fault = fault or error
    if not found:
        assert fault is not None
        raise fault
    return np.array(found)
