"""The scan names every bad file, in order; drop leaves them out; sizes are of the shorter sides."""

from pathlib import Path

import pytest
from PIL import Image

from convit.data import BadImage, FileImages, drop
from convit.data.scan import look, shorter_sides
from convit.errors import InputError
from convit.events import Advanced, Event, PassBegan, ignore


def photos(root: Path) -> FileImages:
    names = [f"{label}/{i}.jpg" for label in ("cat", "dog") for i in range(4)]
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (100, 10 * (i + 1))).save(root / name)
    return FileImages(root, names, [0] * 4 + [1] * 4, ["cat", "dog"])


def test_scan_names_the_bad_in_order(tmp_path: Path) -> None:
    images = photos(tmp_path)
    (tmp_path / "dog/3.jpg").write_bytes(b"")
    (tmp_path / "dog/0.jpg").write_text("text")
    whole = (tmp_path / "cat/2.jpg").read_bytes()
    (tmp_path / "cat/2.jpg").write_bytes(whole[: len(whole) - 40])
    told: list[Event] = []
    bad, _ = look(images, "checking", told.append)
    assert [image.name for image in bad] == ["cat/2.jpg", "dog/0.jpg", "dog/3.jpg"]
    assert bad[0].reason.startswith("truncated JPEG")
    assert bad[1].reason.startswith("not an image")
    assert bad[2].reason.startswith("an empty file")
    assert told == [PassBegan("checking", 8), *[Advanced(1)] * 8]
    left = drop(images, bad)
    assert left.names == ("cat/0.jpg", "cat/1.jpg", "cat/3.jpg", "dog/1.jpg", "dog/2.jpg")
    assert left.targets.tolist() == [0, 0, 0, 1, 1]
    assert look(left, "checking", ignore)[0] == []


def test_drop_refuses_to_empty_a_class(tmp_path: Path) -> None:
    images = photos(tmp_path)
    with pytest.raises(InputError, match="no image that decodes in class 'dog'"):
        drop(images, [BadImage(f"dog/{i}.jpg", "") for i in range(4)])


def test_shorter_sides(tmp_path: Path) -> None:
    images = photos(tmp_path)
    assert sorted(shorter_sides(images)) == [10, 20, 30, 40, 50, 60, 70, 80]
    assert sorted(shorter_sides(images.subset([0, 1, 7]))) == [10, 20, 80]
