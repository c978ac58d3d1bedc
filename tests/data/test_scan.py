"""The scan names every bad file, in order; drop leaves them out; the native size is a median."""

from pathlib import Path

import pytest
from PIL import Image

from convit.data import BadImage, FileImages, drop, native_size, open_source, scan
from convit.errors import InputError


def photos(root: Path) -> FileImages:
    names = [f"{label}/{i}.jpg" for label in ("cat", "dog") for i in range(4)]
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (100, 10 * (i + 1))).save(root / name)
    return FileImages(root, names, [0] * 4 + [1] * 4, ["cat", "dog"])


@pytest.mark.parametrize("workers", [None, 1, 3])
def test_scan_names_the_bad_in_order(workers: int | None, tmp_path: Path) -> None:
    images = photos(tmp_path)
    (tmp_path / "dog/3.jpg").write_bytes(b"")
    (tmp_path / "dog/0.jpg").write_text("text")
    whole = (tmp_path / "cat/2.jpg").read_bytes()
    (tmp_path / "cat/2.jpg").write_bytes(whole[: len(whole) - 40])
    calls: list[tuple[int, int]] = []
    bad = scan(images, workers=workers, progress=lambda done, total: calls.append((done, total)))
    assert [image.name for image in bad] == ["cat/2.jpg", "dog/0.jpg", "dog/3.jpg"]
    assert bad[0].reason.startswith("truncated JPEG")
    assert bad[1].reason.startswith("not an image")
    assert bad[2].reason.startswith("an empty file")
    assert calls == [(done, 8) for done in range(1, 9)]
    left = drop(images, bad)
    assert left.names == ("cat/0.jpg", "cat/1.jpg", "cat/3.jpg", "dog/1.jpg", "dog/2.jpg")
    assert left.targets.tolist() == [0, 0, 0, 1, 1]
    assert scan(left) == []


def test_drop_refuses_to_empty_a_class(tmp_path: Path) -> None:
    images = photos(tmp_path)
    with pytest.raises(InputError, match="no image that decodes in class 'dog'"):
        drop(images, [BadImage(f"dog/{i}.jpg", "") for i in range(4)])


def test_native_size_is_the_median_of_the_shorter_sides(tmp_path: Path) -> None:
    images = photos(tmp_path)  # shorter sides 10, 20 .. 80
    assert native_size(images) == 45
    assert native_size(images, sample=1, seed=3) in range(10, 90, 10)
    assert native_size(images.subset([0, 1, 7])) == 20
    assert native_size(open_source("digits").splits["train"]) == 8
