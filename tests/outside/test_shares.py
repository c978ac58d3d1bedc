"""Whole trees as they come from elsewhere: `convit train` learns the right classes, or says what to do."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convit.training.run_folder import RunFolder
from tests.cli.command import SMALL, Shell
from tests.outside.folders import classes, picture, put

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)
ROTATED = 6  # the EXIF orientation of a phone that is held upright
ORIENTATION = 0x0112


def learned(shell: Shell, data: Path, out: Path, *more: str) -> tuple[dict[str, dict[str, int]], str]:
    """What a run on the tree learned from, split -> class -> images, and what it said."""
    got = shell("train", data, "--out", out, "--batch-size", "2", "--device", "cpu", *SMALL, *more)
    assert (got.status, got.err) == (0, ""), got
    facts = RunFolder(out).read_plan().facts
    return {split: dict(zip(facts.class_names, counts, strict=True)) for split, counts in facts.counts.items()}, got.out


def test_tiny_imagenet(tmp_path: Path, shell: Shell) -> None:
    root = tmp_path / "tiny-imagenet-200"
    wnids = ("n01443537", "n01629819", "n02058221")
    for wnid in wnids:
        put(root / "train", *(f"{wnid}/images/{wnid}_{i}.JPEG" for i in range(3)), f"{wnid}/{wnid}_boxes.txt")
    put(root / "val/images", *(f"val_{i}.JPEG" for i in range(6)))
    rows = (f"val_{i}.JPEG\t{wnids[i % 2]}\t0\t32\t44\t62\n" for i in range(6))
    (root / "val/val_annotations.txt").write_text("".join(rows))
    put(root / "test/images", "test_0.JPEG", "test_1.JPEG")
    put(root, "wnids.txt", "words.txt")
    counts, said = learned(shell, root, tmp_path / "run")
    assert counts == {"train": dict.fromkeys(wnids, 3), "val": dict(zip(wnids, (3, 3, 0), strict=True))}
    assert "left out test: its 2 images have no labels" in said


def test_kaggle(tmp_path: Path, shell: Shell) -> None:
    root = tmp_path / "intel-image-classification"
    classes(root / "seg_train/seg_train", "forest", "sea", images=4)
    classes(root / "seg_test/seg_test", "forest", "sea", images=2)
    put(root / "seg_pred/seg_pred", "1.jpg", "2.jpg")
    counts, said = learned(shell, root, tmp_path / "run")
    assert counts == {"train": {"forest": 3, "sea": 3}, "val": {"forest": 1, "sea": 1}, "test": {"forest": 2, "sea": 2}}
    assert "left out seg_pred: its 2 images have no labels" in said


def test_kaggle_without_labels(tmp_path: Path, shell: Shell) -> None:
    """Images in one folder and their labels in a list, which lies beside it."""
    root = put(tmp_path / "dog-breeds", "train/1.jpg", "train/2.jpg", "test/3.jpg")
    (root / "labels.csv").write_text("id,breed\n1,boxer\n2,poodle\n")
    shell.refuses("train", root, *SMALL, says=("'train'", "'test'", "no class folders", root / "labels.csv"))
    shell.refuses("train", root / "train", *SMALL, says=("2 images, but not in class folders", root / "labels.csv"))


def test_a_synology_share(tmp_path: Path, shell: Shell) -> None:
    share = classes(tmp_path / "photo", "cat", "dog")
    for path in list(share.rglob("*.png")):
        put(
            path.parent / "@eaDir" / path.name,
            "SYNOPHOTO_THUMB_XL.jpg",
            "SYNOPHOTO_THUMB_M.jpg",
            "SYNOINDEX_MEDIA_INFO",
        )
    put(share, "@eaDir/cat@SynoEAStream", "@eaDir/cat/x.jpg", "#recycle/old/1.jpg", "#snapshot/1.jpg", "Thumbs.db")
    counts, said = learned(shell, share, tmp_path / "run")
    assert counts == {"train": {"cat": 3, "dog": 3}, "val": {"cat": 1, "dog": 1}}
    assert "'@eaDir' (3 times)" in said
    assert "'#recycle'" in said


def phone(folder: Path, *names: str) -> Path:
    """Pictures as a phone has them: HEIC, and JPEG that lies on its side."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if name.endswith(".HEIC"):
            (folder / name).write_bytes(HEIC)
        else:
            exif = Image.Exif()
            exif[ORIENTATION] = ROTATED
            picture(name, (16, 8)).save(folder / name, exif=exif)
    return folder


def test_the_export_of_a_phone(tmp_path: Path, shell: Shell) -> None:
    root = tmp_path / "export"
    phone(root / "garden", *(f"IMG_{i}.JPG" for i in range(4)), "IMG_8.HEIC", "IMG_9.HEIC")
    phone(root / "street", *(f"IMG_1{i}.JPG" for i in range(4)))
    put(root, "garden/IMG_1.AAE", "street/IMG_10.MOV")
    counts, said = learned(shell, root, tmp_path / "run")
    assert counts == {"train": {"garden": 3, "street": 3}, "val": {"garden": 1, "street": 1}}
    assert "2 HEIC files left out, such as garden/IMG_8.HEIC" in said
    assert "shorter side of the images: 8 px" in said
    phone(root / "indoors", "IMG_20.HEIC")
    shell.refuses("train", root, *SMALL, says=("'indoors'", ".HEIC", "JPEG"))


def test_microscope_pictures_of_16_bits(tmp_path: Path, shell: Shell) -> None:
    root, rng = tmp_path / "plate 7", np.random.default_rng(0)
    for label, bright in (("control", 300), ("treated", 3000)):
        for i in range(4):
            (root / label).mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(bright, bright + 200, (8, 8), dtype=np.uint16)
            Image.fromarray(pixels).save(root / label / f"well_{i}.tif")
    put(root, "control/metadata.xml")
    counts, said = learned(shell, root, tmp_path / "run")
    assert counts["train"] == {"control": 3, "treated": 3}
    assert "control/metadata.xml" in said


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_list_from_a_mac(form: str, tmp_path: Path, shell: Shell) -> None:
    """On the disk accents are letters of their own, in the list they are not; labels are either."""
    names = [
        unicodedata.normalize("NFD", f"{label} {i}.png") for label in ("\u00e9t\u00e9", "f\u00fcr") for i in range(4)
    ]
    root = put(tmp_path / "photos", *names)
    labels = [unicodedata.normalize(form if i % 2 else "NFC", name.split()[0]) for i, name in enumerate(names)]
    rows = [f"{unicodedata.normalize('NFC', name)},{label}\n" for name, label in zip(names, labels, strict=True)]
    (root / "list.csv").write_text("path,label\n" + "".join(rows), encoding="utf-8")
    counts, _ = learned(shell, root / "list.csv", tmp_path / "run")
    assert counts["train"] == {"\u00e9t\u00e9": 3, "f\u00fcr": 3}
