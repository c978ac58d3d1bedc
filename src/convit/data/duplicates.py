"""The same pictures twice: in two splits, in two classes, and among images that a model has learned from.

Pictures are the same if their contents are, to the byte. Only those of equal size are read for it, and none is decoded.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

from convit.data.image_sets import FileImages, ImageSet
from convit.errors import counted

Place = tuple[str, int]
"""A split, and the index of an image in it."""

MOST_READ = 20_000
"""So many learned images, at most, are read to compare them with those to evaluate on."""


def duplicate_notes(
    splits: Mapping[str, ImageSet], contents: Mapping[str, Sequence[int]], checksums: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """What is to be said of the same pictures in two splits or in two classes, in lines.

    Args:
        splits: split -> images.
        contents: split -> :meth:`ImageSet.contents` of them.
        checksums: name -> :meth:`ImageSet.checksum`, where it is known; the others are read for it.
    """
    across: dict[tuple[str, ...], list[tuple[Place, Place]]] = {}
    for same in same_pictures(splits, contents, checksums):
        by_split = {split: (split, index) for split, index in reversed(same)}
        for pair in combinations([split for split in splits if split in by_split], 2):
            across.setdefault(pair, []).append((by_split[pair[0]], by_split[pair[1]]))
        by_class = {int(splits[split].targets[index]): (split, index) for split, index in reversed(same)}
        if len(by_class) > 1:
            first, second, *_ = sorted(by_class.items())
            across.setdefault((), []).append((first[1], second[1]))
    return tuple(_note(where, pairs, splits) for where, pairs in sorted(across.items()))


def _note(where: tuple[str, ...], pairs: list[tuple[Place, Place]], splits: Mapping[str, ImageSet]) -> str:
    one, other = (splits[split].where(index) for split, index in pairs[0])
    number = counted(len(pairs), "picture is", "pictures are")
    place = f"both in {where[0]} and in {where[1]}" if where else "in two classes"
    harm = "accuracy on them says too much" if where else "one of the two labels is wrong"
    return f"{number} {place}, to the byte, such as {one} and {other}: {harm}"


def same_pictures(
    splits: Mapping[str, ImageSet], contents: Mapping[str, Sequence[int]], checksums: Mapping[str, str] | None = None
) -> Iterator[list[Place]]:
    """The places of each picture that is there more than once, to the byte; the arguments are as above."""
    known = checksums or {}

    def checksum(place: Place) -> str:
        images, index = splits[place[0]], place[1]
        return known.get(images.names[index]) or images.checksum(index)

    for alike in _grouped([((split, i), size) for split in splits for i, size in enumerate(contents[split])]):
        yield from _grouped([(place, checksum(place)) for place in alike])


def _grouped(pairs: Sequence[tuple[Place, int | str]]) -> Iterator[list[Place]]:
    """The places that share a value, in their order, where two or more do. -1 and an empty text mean that an image
    could not be read, and are left out."""
    groups: dict[int | str, list[Place]] = {}
    for place, value in pairs:
        groups.setdefault(value, []).append(place)
    return (places for value, places in groups.items() if len(places) > 1 and value not in (-1, ""))


def learned_note(images: ImageSet, root: str | None, learned: Mapping[str, int]) -> str | None:
    """What is to be said of images that a model has learned from, by their contents; None if there are none.

    Where the learned images are still at their place, files of equal size are compared. Where they are not, sizes tell
    if at least half of the images, and three, have a size that no other image has but one that was learned.

    Args:
        images: to evaluate on.
        root: the value of DATA that opened the learned images.
        learned: name -> :meth:`ImageSet.contents` of each learned image.
    """
    now = images.contents()
    names: dict[int, list[str]] = {}
    for name, content in learned.items():
        names.setdefault(content, []).append(name)
    suspects = [i for i, content in enumerate(now) if content in names and content != -1]
    if not isinstance(images, FileImages):  # contents are checksums of 32 bits: a few are equal by chance
        few = len(suspects) <= 10 * len(images) * len(learned) / 2**32
        return None if few else _learned_note(images, suspects, "have the checksum of")
    sums = _checksums(root, [name for content in {now[i] for i in suspects} for name in names[content]])
    if sums:
        same = [i for i in suspects if images.checksum(i) in sums]
        return _learned_note(images, same, "are") if same else None
    count = Counter(now)
    telling = [i for i in suspects if len(names[now[i]]) == 1 and count[now[i]] == 1]
    if len(telling) < max(3, len(images) / 2):
        return None
    return _learned_note(images, telling, "have the size, to the byte, of")


def _learned_note(images: ImageSet, which: list[int], how: str) -> str:
    return (
        f"{len(which)} of the {len(images)} images {how} images that the run learned from, such as "
        f"{images.where(which[0])}: accuracy on them says too much"
    )


def _checksums(root: str | None, names: Sequence[str]) -> set[str]:
    """Of the images of a folder or of a list, by their names; none if they are gone, or too many to be read."""
    if root is None or not Path(root).is_absolute() or len(names) > MOST_READ:
        return set()
    place = Path(root) if Path(root).is_dir() else Path(root).parent
    images = FileImages(place, names, [0] * len(names), ["any"])
    return {images.checksum(i) for i in range(len(images))} - {""}
