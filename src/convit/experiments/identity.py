"""What results must share to stand in one table: the code, the data and the settings that made them."""

import hashlib
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convit.data import DataSource, data_digest


def code_identity() -> dict[str, str]:
    """Versions of the libraries that results depend on, and a digest of this package's source."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    versions = {name: importlib.metadata.version(name) for name in ("convit", "torch", "torchvision", "timm")}
    return versions | {"source": digest.hexdigest()[:16]}


def data_identity(source: DataSource) -> dict[str, Any]:
    """The parts with their numbers of images, and a digest of names, labels and contents."""
    counts = {part: len(images) for part, images in source.parts.items()}
    return {"root": source.root, "images": counts, "digest": data_digest(source.class_names, source.parts)}


def first_difference(before: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> str | None:
    """Where two identities part, in words; None if they are the same.

    >>> first_difference({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}})
    'b.c is 2, got 3'
    """
    for key in (*before, *(key for key in now if key not in before)):
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            if found := first_difference(old, new, f"{where}{key}."):
                return found
        elif old != new:
            return f"{where}{key} is {old}, got {new}"
    return None
