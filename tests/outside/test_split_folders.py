"""Folders as strangers have them: which of them are splits, by their names or as they are named in the command."""

import json
import shutil
from pathlib import Path

import pytest

from convit.data import open_source
from convit.data.select import Evaluating, Known, Learning, select
from convit.training.run_folder import RunFolder
from tests.cli.command import SMALL, Shell
from tests.data.made import fails as refused
from tests.outside.folders import classes, put, splits


def told(data: Path) -> str:
    """What is said of the images before they are learned from."""
    return "\n".join(select(str(data), Learning()).facts().notes)


# -- which folders are splits ------------------------------------------------------------------------------------------

NAMES = [
    ("Training", "Testing", "test"),
    ("training", "validation", "val"),
    ("training_set", "test_set", "test"),
    ("train", "dev", "val"),
    ("train", "eval", "val"),
    ("train", "validate", "val"),
    ("seg_train", "seg_test", "test"),
    ("Train", "Valid", "val"),
    ("TRAIN", "TEST", "test"),
    ("trainset", "testset", "test"),
    ("train-images", "Validation Data", "val"),
    ("train2017", "val2017", "val"),
]


@pytest.mark.parametrize(("one", "other", "split"), NAMES)
def test_the_usual_names_of_splits(one: str, other: str, split: str, tmp_path: Path) -> None:
    classes(tmp_path / one, "cat", "dog")
    classes(tmp_path / other, "cat", "dog", images=2)
    assert splits(tmp_path) == {"train": [4, 4], split: [2, 2]}
    assert open_source(str(tmp_path)).class_names == ("cat", "dog")


@pytest.mark.parametrize("outer", ["", "data/", "data/data/"])
@pytest.mark.parametrize("inner", ["", "seg_train/"])
def test_nested_once_more(outer: str, inner: str, tmp_path: Path) -> None:
    classes(tmp_path / f"data/{outer}seg_train/{inner}", "cat", "dog")
    classes(tmp_path / f"data/{outer}seg_test/{inner.replace('train', 'test')}", "cat", "dog", images=2)
    if outer == "data/data/":
        refused(tmp_path / "data", f"did you mean {tmp_path / 'data/data/data'}?")
    else:
        assert splits(tmp_path / "data") == {"train": [4, 4], "test": [2, 2]}


def test_a_part_alone_that_is_nested(tmp_path: Path) -> None:
    classes(tmp_path / "seg_train/seg_train", "cat", "dog")
    assert splits(tmp_path / "seg_train") == {"train": [4, 4]}


@pytest.mark.parametrize(("one", "other"), [("fold1_train", "fold1_test"), ("my train photos", "my test photos")])
def test_folders_that_look_like_splits_are_not_classes(one: str, other: str, tmp_path: Path) -> None:
    for name in (one, other):
        classes(tmp_path / name, "cat", "dog")
    refused(tmp_path, repr(one), repr(other), f"--train {one}", f"--test {other}", "--train . ")


def test_a_test_split_and_a_folder_of_the_same_classes(tmp_path: Path) -> None:
    for name in ("learn", "test"):
        classes(tmp_path / name, "cat", "dog")
    refused(tmp_path, "'test'", "--train DIR --test test")


@pytest.mark.parametrize("other", ["train_backup", "extra"])
def test_a_split_and_a_folder_of_the_same_classes(other: str, tmp_path: Path) -> None:
    for name in ("train", other):
        classes(tmp_path / name, "cat", "dog")
    refused(tmp_path, "'train'", "--train train, or --train . ")
    assert open_source(str(tmp_path), folders={"train": Path("train")}).class_names == ("cat", "dog")


def test_splits_without_class_folders_are_not_classes(tmp_path: Path) -> None:
    """As in many a competition: the labels are in a list."""
    put(tmp_path, "train/1.jpg", "train/2.jpg", "test/1.jpg", "train.csv")
    refused(tmp_path, "'train'", "no class folders", str(tmp_path / "train.csv"), "--train . ")


def test_pictures_of_a_phone_alone(tmp_path: Path) -> None:
    refused(put(tmp_path / "flat", "1.heic"), "no class folders", "1.heic", "JPEG")
    refused(put(tmp_path / "photos", "cat/1.heic", "dog/2.HEIC"), "cat/1.heic", "JPEG")


def test_two_folders_for_one_split(tmp_path: Path) -> None:
    for name in ("train", "val", "dev"):
        classes(tmp_path / name, "cat", "dog")
    refused(tmp_path, "'val'", "'dev'", "--val DIR")


def test_classes_that_are_called_like_splits(tmp_path: Path) -> None:
    vehicles = classes(tmp_path / "vehicles", "train", "bus", "tram")
    assert open_source(str(vehicles)).class_names == ("bus", "train", "tram")
    deep = classes(tmp_path / "deep", "train/steam", "train/diesel", "bus")
    assert open_source(str(deep)).class_names == ("bus", "train")
    assert "--train train" in told(deep)  # if it was meant
    places = classes(tmp_path / "places", "train station", "test track", "train track")
    assert len(open_source(str(places)).class_names) == 3
    boards = classes(tmp_path / "boards", "dev", "test")
    refused(boards, "--train . ")
    assert open_source(str(boards), folders={"train": Path()}).class_names == ("dev", "test")
    known = Known(class_names=("dev", "test"), root="elsewhere", folders={"train": Path()})
    assert select(str(boards), Evaluating(known=known)).splits["all"].counts().tolist() == [4, 4]


def test_splits_within_classes_are_said(tmp_path: Path) -> None:
    classes(tmp_path, "cat/train", "cat/test", "dog/train", "dog/test")
    assert splits(tmp_path) == {"all": [8, 8]}
    assert "the splits 'test', 'train'" in told(tmp_path)


def test_folds_are_said_to_be_taken_for_classes(tmp_path: Path) -> None:
    for name in ("fold0", "fold1"):
        classes(tmp_path / name, "cat", "dog")
    assert "'fold0', 'fold1' have the folders 'cat', 'dog'" in told(tmp_path)


def test_one_split_of_several_is_said_to_be_alone(tmp_path: Path) -> None:
    for name in ("Training", "Testing"):
        classes(tmp_path / name, "cat", "dog")
    assert f"not used: test beside Training; {tmp_path} as DATA" in told(tmp_path / "Training")
    assert select(str(tmp_path / "Testing"), Evaluating()).notes == ()


def test_folders_for_pictures_and_labels_in_a_split(tmp_path: Path) -> None:
    """As for detectors: there are no classes in folders."""
    put(tmp_path, *(f"{split}/{name}" for split in ("train", "valid") for name in ("images/1.jpg", "labels/1.txt")))
    refused(tmp_path, "'train', 'valid'", "in no class folders")


# -- split folders that are named --------------------------------------------------------------------------------------


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A data set whose splits are called by no usual names."""
    classes(tmp_path / "photos/lernen", "cat", "dog", images=6)
    classes(tmp_path / "photos/pruefen", "cat", "dog", images=2)
    classes(tmp_path / "elsewhere", "cat", "dog", images=3)
    return tmp_path / "photos"


def test_named_splits_from_the_command_to_the_evaluation(odd: Path, tmp_path: Path, shell: Shell) -> None:
    named = ("--train", "lernen", "--val", odd / "pruefen", "--test", odd.parent / "elsewhere")
    run = tmp_path / "run"
    got = shell("train", odd, *named, "--out", run, "--batch-size", "4", "--device", "cpu", *SMALL)
    assert (got.status, got.err) == (0, "")
    assert "photos: 2 classes, 12 to learn from, 4 to validate, 6 to test" in got.out
    folder = RunFolder(run)
    assert {split: str(place) for split, place in folder.read_options().split_folders.items()} == {
        "train": "lernen",
        "val": "pruefen",
        "test": "../elsewhere",
    }
    assert folder.read_split()["val"][0] == "pruefen/cat/pruefen0.png"
    assert shell("train", "--config", run / "config.yaml", "--out", tmp_path / "again").status == 0
    assert folder.read_split() == RunFolder(tmp_path / "again").read_split()
    assert shell("train", "--resume", run, *named).status == 0
    shell.refuses("train", "--resume", run, "--train", "pruefen", says=("train", "pruefen", "lernen"))
    for split, images in (("auto", 6), ("val", 4), ("train", 12)):
        got = shell("evaluate", run, odd, "--split", split, "--json", "--device", "cpu")
        assert json.loads(got.out)["images"] == images
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("photos", "elsewhere"):
        shutil.move(tmp_path / name, moved / name)
    assert shell("train", moved / "photos", "--resume", run).status == 0


def test_class_folders_right_in_the_data_and_a_test_folder_among_them(tmp_path: Path) -> None:
    classes(tmp_path, "cat", "dog", "probe/cat", "probe/dog")
    source = open_source(str(tmp_path), folders={"train": Path(), "test": Path("probe")})
    assert source.class_names == ("cat", "dog")
    assert {split: len(images) for split, images in source.splits.items()} == {"train": 8, "test": 8}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--train", "nowhere"), ("train: ", "'nowhere'", "'lernen', 'pruefen'")),
        (("--val", "pruefen"), ("val", "--train DIR", "--train .")),
        (("--train", "lernen", "--test", "lernen"), ("train and test", "lernen")),
    ],
)
def test_named_splits_that_cannot_be(words: tuple[str, ...], says: tuple[str, ...], odd: Path, shell: Shell) -> None:
    shell.refuses("train", odd, *words, says=says)


def test_a_run_among_the_images_of_a_named_split(odd: Path, shell: Shell) -> None:
    other = odd.parent / "elsewhere"
    words = ("--train", "lernen", "--test", other, "--out", other / "run")
    shell.refuses("train", odd, *words, *SMALL, says=("out", other, "a folder apart"))


def test_split_folders_of_what_is_no_folder(shell: Shell) -> None:
    shell.refuses("train", "digits", "--train", "x", says=("train", "digits", "folder"))
