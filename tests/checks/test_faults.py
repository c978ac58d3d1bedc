"""Small classes and odd pictures."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from convit.checks.check import check, chosen
from convit.checks.report import Report
from tests.checks.made import photos, picture, save


def checked(root: Path) -> Report:
    return check(chosen(str(root)))


def odd(report: Report, kind: str) -> list[str]:
    return [report.pictures.name(one.image) for one in report.odd_of(kind)]


def test_a_sound_folder_has_no_faults(tmp_path: Path) -> None:
    report = checked(photos(tmp_path / "photos"))
    assert [count for _, count, _ in report.rows()] == [0, 0, 0, 0, 0, 0, 0]


def test_odd_pictures_are_found(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", per_class=20, splits=("train",))
    ape = root / "train" / "ape"
    save(picture(100, (12, 9)), ape / "few.png")
    save(picture(101, (900, 20)), ape / "wide.png")
    save(picture(102).filter(ImageFilter.GaussianBlur(6)), ape / "blurred.png")
    save(Image.fromarray((np.asarray(picture(103)) // 16).astype(np.uint8)), ape / "dark.png")
    save(Image.new("RGB", (96, 72), (120, 40, 40)), ape / "plain.png")
    report = checked(root)
    assert set(odd(report, "size")) >= {"train/ape/few.png", "train/ape/wide.png"}
    assert odd(report, "blur") == ["train/ape/blurred.png"]
    assert set(odd(report, "brightness")) == {"train/ape/dark.png", "train/ape/plain.png"}


def test_small_classes_and_those_that_a_split_lacks(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", per_class=12, splits=("train", "test"))
    save(picture(200), root / "train" / "cow" / "1.jpg")
    (small,) = checked(root).small
    assert (small.name, dict(small.counts)) == ("cow", {"train": 1, "test": 0})
    assert "test" in small.why


def test_a_class_without_an_image_that_decodes(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", splits=("train",))
    (root / "train" / "cow").mkdir()
    (root / "train" / "cow" / "1.jpg").write_bytes(b"")
    report = checked(root)
    assert [(one.name, one.counts["train"]) for one in report.small] == [("cow", 0)]
    assert [report.pictures.name(i) for i, _ in report.unreadable] == ["train/cow/1.jpg"]


def test_images_of_12_bits_are_measured_by_their_full_scale(tmp_path: Path) -> None:
    for label, name in enumerate(("ape", "bee")):
        for i in range(10):
            values = np.asarray(picture(20 * label + i).convert("L"), np.uint16) * 16
            save(Image.fromarray(values), tmp_path / "deep" / name / f"{i}.png")
    report = checked(tmp_path / "deep")
    assert not report.unreadable
    assert not odd(report, "brightness")
