"""Names, labels and contents of labelled images as values to store and compare, to detect changed data."""

from collections.abc import Mapping, Sequence
from typing import Any

from convit.data.image_sets import ImageSet
from convit.errors import listing


def describe(class_names: Sequence[str], splits: Mapping[str, ImageSet]) -> dict[str, Any]:
    """The classes, and of every split the name, the label and the content (:meth:`ImageSet.contents`) of each image, as
    JSON values. No image is decoded for it."""
    return {
        "class_names": list(class_names),
        "splits": {
            split: {"names": list(images.names), "labels": images.targets.tolist(), "contents": images.contents()}
            for split, images in splits.items()
        },
    }


def first_changed_name(before: Mapping[str, Sequence[str]], now: Mapping[str, Sequence[str]]) -> str | None:
    """Where the names of the images differ, by split, in words; None if they are the same.

    >>> first_changed_name({"train": ["a", "b"]}, {"train": ["a", "c"]})
    "'c' is new"
    """
    if before == now:
        return None
    had, has = ({name for names in splits.values() for name in names} for splits in (before, now))
    for changed, how in ((has - had, "is new"), (had - has, "is gone")):
        if changed:
            more = f", and {len(changed) - 1} more" if len(changed) > 1 else ""
            return f"{min(changed)!r} {how}{more}"
    return "the same names, in other splits or in another order"


def first_change(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Where two descriptions of images differ, in words; None if they are the same.

    >>> was, new = ({"class_names": ["ape", "bee"],
    ...              "splits": {"train": {"names": ["7.png"], "labels": [label], "contents": [9]}}} for label in (0, 1))
    >>> first_change(was, new)
    "the label of '7.png' was 'ape', now 'bee'"
    """
    classes, new_classes = before["class_names"], now["class_names"]
    if classes != new_classes:
        return f"its classes were {listing(classes)}, now {listing(new_classes)}"
    names, new_names = ({name: split["names"] for name, split in one["splits"].items()} for one in (before, now))
    if change := first_changed_name(names, new_names):
        return change
    for split, images in now["splits"].items():
        was = before["splits"][split]
        for name, old, new in zip(images["names"], was["labels"], images["labels"], strict=True):
            if old != new:
                return f"the label of {name!r} was {classes[old]!r}, now {classes[new]!r}"
        for name, old, new in zip(images["names"], was["contents"], images["contents"], strict=True):
            if old != new:
                return f"{name!r} is another image"
    return None
