"""What labelled images are, in values that can be kept and compared: so that changed data is noticed."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from convit.data.image_sets import ImageSet, listing


def describe(class_names: Sequence[str], parts: Mapping[str, ImageSet]) -> dict[str, Any]:
    """The classes, and of every part the label and the content (:meth:`ImageSet.contents`) of each image, for JSON.

    Names are not in it: where it is kept, they are too.
    """
    return {
        "class_names": list(class_names),
        "parts": {
            part: {"labels": images.targets.tolist(), "contents": images.contents()} for part, images in parts.items()
        },
    }


def digest(value: Any) -> str:
    """16 hexadecimal digits that are others for every other value of JSON's types."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def data_digest(class_names: Sequence[str], parts: Mapping[str, ImageSet]) -> str:
    """The same of all that :func:`describe` gives, and of the names."""
    names = {part: images.names for part, images in parts.items()}
    return digest([names, describe(class_names, parts)])


def first_changed_name(before: Mapping[str, Sequence[str]], now: Mapping[str, Sequence[str]]) -> str | None:
    """Where the names of the images differ, by part, in words; None if they are the same.

    >>> first_changed_name({"train": ["a", "b"]}, {"train": ["a", "c"]})
    "'c' is new"
    """
    if before == now:
        return None
    had, has = ({name for names in parts.values() for name in names} for parts in (before, now))
    for changed, how in ((has - had, "is new"), (had - has, "is gone")):
        if changed:
            more = f", and {len(changed) - 1} more" if len(changed) > 1 else ""
            return f"{min(changed)!r} {how}{more}"
    return "the same names, in other parts or in another order"


def first_change(before: Mapping[str, Any], now: Mapping[str, Any], names: Mapping[str, Sequence[str]]) -> str | None:
    """Where two descriptions of images of the same names differ, in words; None if they are the same.

    >>> was, new = ({"class_names": ["ape", "bee"], "parts": {"train": {"labels": [label], "contents": [9]}}}
    ...             for label in (0, 1))
    >>> first_change(was, new, {"train": ["7.png"]})
    "the label of '7.png' was 'ape', now 'bee'"
    """
    classes, new_classes = before["class_names"], now["class_names"]
    if classes != new_classes:
        return f"its classes were {listing(classes)}, now {listing(new_classes)}"
    for part, images in now["parts"].items():
        was = before["parts"][part]
        for name, old, new in zip(names[part], was["labels"], images["labels"], strict=True):
            if old != new:
                return f"the label of {name!r} was {classes[old]!r}, now {classes[new]!r}"
        for name, old, new in zip(names[part], was["contents"], images["contents"], strict=True):
            if old != new:
                return f"{name!r} is another image"
    return None
