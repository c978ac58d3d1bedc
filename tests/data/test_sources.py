"""Folders in every layout, digits, and the table of sources."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convit.data import SOURCE_NAMES, ArrayImages, Source, open_source, sources
from convit.data.sources import SOURCES, SourceKind
from convit.errors import InputError
from tests.data.made import fails, labels


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in (".jpg", ".png"):
            Image.new("RGB", (6, 4)).save(path)
        else:
            path.touch()
    return root


def test_class_folders_are_one_undivided(tmp_path: Path) -> None:
    make(tmp_path, "dog/2.JPG", "cat/b 1.png", "cat/deep/er/ü.jpg", "cat/._b.jpg", "cat/Thumbs.db", ".git/x/1.jpg")
    make(tmp_path, "cover.jpg", "dog/notes.txt", "__MACOSX/cat/1.jpg")
    source = open_source(str(tmp_path))
    assert source.splits.keys() == {"all"}
    assert source.class_names == ("cat", "dog")
    assert labels(source.splits["all"]) == {"cat/b 1.png": "cat", "cat/deep/er/ü.jpg": "cat", "dog/2.JPG": "dog"}
    assert source.ignored == ("dog/notes.txt",)
    assert source.splits["all"].size(0) == (6, 4)
    assert source.splits["all"].read(0).size == (6, 4)
    assert (source.name, source.root, source.flip) == (tmp_path.name, str(tmp_path.resolve()), True)
    assert pickle.loads(pickle.dumps(source.splits["all"])).names == source.splits["all"].names


@pytest.mark.parametrize("val", ["val", "valid", "Validation"])
def test_splits_are_matched_by_name(val: str, tmp_path: Path) -> None:
    make(tmp_path, "train/ant/1.jpg", "train/bee/1.jpg", "train/cow/1.jpg", f"{val}/cow/1.jpg", f"{val}/bee/2.jpg")
    make(tmp_path, "test/cow/9.jpg", "readme.txt", "extra/1.jpg", f"{val}/ant/notes.txt")
    source = open_source(str(tmp_path))
    assert source.splits.keys() == {"train", "val", "test"}
    assert source.class_names == ("ant", "bee", "cow")
    # by position among the folders of val these would be 0 and 1
    assert labels(source.splits["val"]) == {f"{val}/bee/2.jpg": "bee", f"{val}/cow/1.jpg": "cow"}
    assert source.splits["val"].targets.tolist() == [1, 2]
    assert source.splits["test"].targets.tolist() == [2]


def test_class_that_train_lacks(tmp_path: Path) -> None:
    make(tmp_path, "train/ant/1.jpg", "train/bee/1.jpg", "val/bee/1.jpg", "val/zebra/1.jpg")
    fails(tmp_path, "zebra", "val/zebra/1.jpg", "'ant', 'bee'")


def test_classes_called_train_and_test(tmp_path: Path) -> None:
    flat = make(tmp_path / "a", "train/1.jpg", "test/1.jpg")
    fails(flat, "'test', 'train' look like splits, not classes", "--train .")
    assert open_source(str(flat), folders={"train": Path()}).class_names == ("test", "train")
    vehicles = make(tmp_path / "b", "train/steam/1.jpg", "bus/1.jpg")
    assert open_source(str(vehicles)).class_names == ("bus", "train")
    lone = make(tmp_path / "c", "train/cat/1.jpg", "train/dog/1.jpg", "docs/x.txt")
    assert open_source(str(lone)).splits.keys() == {"train"}
    only_test = make(tmp_path / "d", "test/cat/1.jpg", "test/dog/1.jpg")
    assert open_source(str(only_test)).splits.keys() == {"test"}


def test_bad_folders(tmp_path: Path) -> None:
    fails(tmp_path / "missing", "missing", "no such folder")
    fails(make(tmp_path / "file", "x.jpg") / "x.jpg", "x.jpg: a file")
    (tmp_path / "empty").mkdir()
    fails(tmp_path / "empty", "empty", "one sub-folder of images for each class")
    fails(make(tmp_path / "loose", "1.jpg", "2.jpg"), "2 images, but not in class folders")
    fails(make(tmp_path / "one", "cat/1.jpg"), "only one class, 'cat'", "at least 2")
    assert open_source(str(tmp_path / "one"), min_classes=1).class_names == ("cat",)
    fails(make(tmp_path / "hollow", "cat/1.jpg", "dog/1.heic", "eel/x.heic"), "no image in class 'dog', 'eel'", ".heic")
    fails(make(tmp_path / "none", "cat/1.txt", "dog/1.txt"), "no image in 2 folders")
    fails(make(tmp_path / "twice", "train/a/1.jpg", "val/a/1.jpg", "valid/a/1.jpg"), "'val'", "'valid'")
    fails("", "no such folder")


def test_nearest_name(tmp_path: Path) -> None:
    fails("cifr10", "did you mean 'cifar10'?", "digits")
    (tmp_path / "photos").mkdir()
    fails(tmp_path / "photo", f"did you mean '{tmp_path / 'photos'}'?")


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    make(tmp_path / "store", "1.jpg")
    make(tmp_path / "data", "dog/1.jpg", "cat/2.jpg")
    (tmp_path / "data/cat/linked").symlink_to(tmp_path / "store")
    (tmp_path / "data/cat/loop").symlink_to(tmp_path / "data/cat")
    (tmp_path / "store/back").symlink_to(tmp_path / "data/cat")
    (tmp_path / "data/dog/gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    names = open_source(str(tmp_path / "data")).splits["all"].names
    assert names == ("cat/2.jpg", "cat/linked/1.jpg", "dog/1.jpg", "dog/gone.jpg")


def test_digits() -> None:
    source = open_source("digits")
    assert source.splits.keys() == {"train", "test"}
    assert source.flip is False
    assert len(source.splits["train"]) + len(source.splits["test"]) == 1797
    assert not set(source.splits["train"].names) & set(source.splits["test"].names)
    assert source.splits["test"].counts().tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]
    assert source.splits["test"].names[:3] == ("digits/0006", "digits/0015", "digits/0021")  # drawn once and for all
    pixels = np.concatenate([source.splits["train"].pixels, source.splits["test"].pixels])
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert source.splits["train"].read(0).mode == "RGB"
    assert source.splits["train"].size(0) == (8, 8)


def test_image_set_subsets_and_classes() -> None:
    pixels = np.arange(4 * 2 * 3, dtype=np.uint8).reshape(4, 2, 3)
    images = ArrayImages(pixels, ["a", "b", "c", "d"], [2, 0, 1, 2], ["ant", "bee", "cow"])
    some = images.subset([3, 1])
    assert (some.names, some.targets.tolist(), some.size(0)) == (("d", "b"), [2, 0], (3, 2))
    assert np.asarray(some.read(0))[0, 0].tolist() == [18, 18, 18]
    assert some.counts().tolist() == [1, 0, 1]
    assert some.with_classes(["cow", "ant"]).targets.tolist() == [0, 1]
    assert images.called({"c", "a", "z"}).names == ("a", "c")
    with pytest.raises(InputError, match=r"unknown class 'bee' \(as in c\); expected one of 'cow', 'ant'"):
        images.with_classes(["cow", "ant"])


def test_files_of_other_kinds(tmp_path: Path) -> None:
    make(tmp_path, "photos.zip", "photos.csv")
    fails(tmp_path / "photos.zip", "photos.zip: a file; expected a folder of images, a .csv, .tsv or .parquet list")
    fails(tmp_path / "photo.csv", f"did you mean '{tmp_path / 'photos.csv'}'?", "'hf:owner/name'")
    fails("shards-{0..1}.zip", "no such folder or data set")


def test_words_that_no_file_system_knows(tmp_path: Path) -> None:
    """Each is refused in a line, whatever a path library makes of it."""
    for word in ("x" * 5000, "a\0b", "~nobody-of-this-name/photos", "\udcff", " ", "."):
        fails(word if word != "." else tmp_path)


def test_a_new_kind_is_a_line_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    assert SOURCE_NAMES[0] == "digits"
    assert {"cifar10", "flowers102"} < set(SOURCE_NAMES)
    digits = open_source("digits")

    def opened(data: str, opening: object) -> Source:
        return digits

    mine = SourceKind(takes=lambda data: data.startswith("mine:"), open=opened, expected="'mine:anything'")
    fails("mine:x", "no such folder or data set")
    monkeypatch.setattr(sources, "SOURCES", (*SOURCES, mine))
    assert open_source("mine:x").splits is digits.splits
    fails("thine:x", "expected 'mine:anything', a folder of images")
