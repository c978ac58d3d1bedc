"""Changed images are noticed, and the first of them is named."""

from pathlib import Path

import numpy as np

from convit.data import ArrayImages, ImageSet, describe, first_change, open_source
from convit.files import fingerprint
from tests.data.made import photos
from tests.data.shards import samples, shard

NAMES = ["a", "b"]


def in_memory(value: int = 0, targets: tuple[int, int] = (0, 1)) -> ArrayImages:
    pixels = np.zeros((2, 4, 4), np.uint8)
    pixels[1, 3, 3] = value
    return ArrayImages(pixels, NAMES, targets, ["x", "y"])


def change(before: ImageSet, now: ImageSet) -> str | None:
    was, new = (describe(images.class_names, {"train": images}) for images in (before, now))
    return first_change(was, new)


def test_pixels_in_memory() -> None:
    assert change(in_memory(), in_memory()) is None
    assert change(in_memory(), in_memory(value=1)) == "'b' is another image"
    assert change(in_memory(), in_memory(targets=(1, 1))) == "the label of 'a' was 'x', now 'y'"
    renamed = ArrayImages(in_memory().pixels, NAMES, (0, 1), ["x", "z"])
    assert change(in_memory(), renamed) == "its classes were 'x', 'y', now 'x', 'z'"


def test_files(tmp_path: Path) -> None:
    root = photos(tmp_path / "pets", {"cat": 2, "dog": 2})

    def whole() -> ImageSet:
        return open_source(str(root)).splits["all"]

    before = whole()
    described = describe(before.class_names, {"train": before})
    assert described["splits"]["train"]["labels"] == [0, 0, 1, 1]
    assert described["splits"]["train"]["contents"][0] == (root / "cat/0.png").stat().st_size
    (root / "dog/1.png").write_bytes((root / "dog/1.png").read_bytes() + b"\0")
    assert first_change(described, describe(("cat", "dog"), {"train": whole()})) == "'dog/1.png' is another image"


def test_shards(tmp_path: Path) -> None:
    """The bytes of each image in them."""
    file = shard(tmp_path / "train.tar", samples(0, 3))
    images = open_source(str(file)).splits["train"]
    sizes = [len(images.encoded(i)) for i in range(3)]  # type: ignore[attr-defined]
    assert images.contents() == sizes
    assert images.subset([2]).contents() == sizes[2:]


def test_names_and_splits() -> None:
    other = ArrayImages(in_memory().pixels, ["a", "c"], (0, 1), ["x", "y"])
    assert change(in_memory(), other) == "'c' is new"
    assert change(other, in_memory().subset([0])) == "'c' is gone"
    was, now = (describe(("x", "y"), {split: in_memory()}) for split in ("train", "val"))
    assert first_change(was, now) == "the same names, in other splits or in another order"


def test_its_fingerprint_is_of_all_that_may_change() -> None:
    fingerprints = {
        fingerprint(describe(images.class_names, {split: images}))
        for split in ("train", "val")
        for images in (in_memory(), in_memory(value=1), ArrayImages(in_memory().pixels, ["a", "c"], (0, 1), ["x", "y"]))
    }
    assert len(fingerprints) == 6
