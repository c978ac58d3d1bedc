"""Folders as strangers have them: what is a split, what is a class, what is left out, and what is said of it."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from convit.data import open_source
from convit.data.select import Evaluating, Known, Learning, check, select
from convit.errors import InputError
from convit.training import train
from convit.training.run_folder import RunFolder
from tests.cli.command import SMALL, Shell
from tests.outside.folders import classes, picture, put
from tests.training.small import options, resume


@pytest.fixture
def convit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(capsys, monkeypatch)


def splits(data: Path) -> dict[str, list[int]]:
    """Split -> the number of images of each class."""
    return {split: images.counts().tolist() for split, images in open_source(str(data)).splits.items()}


def refused(data: object, *words: str) -> None:
    """Opening it is refused in one line with these words."""
    with pytest.raises(InputError) as caught:
        open_source(str(data))
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


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


def test_named_splits_from_the_command_to_the_evaluation(odd: Path, tmp_path: Path, convit: Shell) -> None:
    named = ("--train", "lernen", "--val", odd / "pruefen", "--test", odd.parent / "elsewhere")
    run = tmp_path / "run"
    got = convit("train", odd, *named, "--out", run, "--batch-size", "4", "--device", "cpu", *SMALL)
    assert (got.status, got.err) == (0, "")
    assert "photos: 2 classes, 12 to learn from, 4 to validate, 6 to test" in got.out
    folder = RunFolder(run)
    assert {split: str(place) for split, place in folder.read_options().split_folders.items()} == {
        "train": "lernen",
        "val": "pruefen",
        "test": "../elsewhere",
    }
    assert folder.read_split()["val"][0] == "pruefen/cat/pruefen0.png"
    assert convit("train", "--config", run / "config.yaml", "--out", tmp_path / "again").status == 0
    assert folder.read_split() == RunFolder(tmp_path / "again").read_split()
    assert convit("train", "--resume", run, *named).status == 0
    convit.refuses("train", "--resume", run, "--train", "pruefen", says=("train", "pruefen", "lernen"))
    for split, images in (("auto", 6), ("val", 4), ("train", 12)):
        got = convit("evaluate", run, odd, "--split", split, "--json", "--device", "cpu")
        assert json.loads(got.out)["images"] == images
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("photos", "elsewhere"):
        shutil.move(tmp_path / name, moved / name)
    assert convit("train", moved / "photos", "--resume", run).status == 0


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
        (("--train", "."), ("",)),
    ],
)
def test_named_splits_that_cannot_be(words: tuple[str, ...], says: tuple[str, ...], odd: Path, convit: Shell) -> None:
    if words == ("--train", "."):
        assert open_source(str(odd), folders={"train": Path()}).class_names == ("lernen", "pruefen")
    else:
        convit.refuses("train", odd, *words, says=says)


def test_a_run_among_the_images_of_a_named_split(odd: Path, convit: Shell) -> None:
    other = odd.parent / "elsewhere"
    words = ("--train", "lernen", "--test", other, "--out", other / "run")
    convit.refuses("train", odd, *words, *SMALL, says=("out", other, "a folder apart"))


def test_split_folders_of_what_is_no_folder(convit: Shell) -> None:
    convit.refuses("train", "digits", "--train", "x", says=("train", "digits", "folder"))


# -- what is said before training --------------------------------------------------------------------------------------


def test_what_was_found_and_left_out_is_said(tmp_path: Path, convit: Shell) -> None:
    data = classes(tmp_path / "photos", "cat", "dog", images=5)
    picture("wide", (30, 20)).save(data / "dog/wide.png")
    put(data, "cover.jpg", "cat/IMG_1.HEIC", "cat/notes.txt", "cat/@eaDir/photos0.png/SYNOPHOTO_THUMB_M.jpg")
    for name in ("#recycle", "lost+found", "$RECYCLE.BIN", "System Volume Information", "__MACOSX", "@eaDir"):
        put(data, f"{name}/x.jpg")
    put(data, "dog/.ipynb_checkpoints/x.png", "dog/.thumbnails/x.png", "dog/Thumbnails/x.png", "dog/Thumbs.db")
    got = convit("train", data, "--out", tmp_path / "run", "--dry-run", *SMALL)
    assert (got.status, got.err) == (0, "")
    for words in (
        "photos: 2 classes, 9 to learn from, 2 to validate",
        "(train/val): cat 4/1, dog 5/1",
        "8 to 20 px",
        "left out 1 images beside the folders",
        "cover.jpg",
        "1 HEIC file left out, such as cat/IMG_1.HEIC",
        "JPEG",
        "'#recycle'",
        "'@eaDir' (2 times)",
        "'System Volume Information'",
        "'lost+found'",
        "'.ipynb_checkpoints'",
        "'Thumbnails'",
    ):
        assert words in got.out
    names = open_source(str(data)).splits["all"].names
    assert len(names) == 11
    assert not any("thumb" in name.lower() or "eaDir" in name for name in names)


def test_of_many_classes_the_smallest_and_the_largest_are_said(tmp_path: Path, convit: Shell) -> None:
    for i in range(12):
        classes(tmp_path / "photos", f"c{i:02}", images=3 + i)
    got = convit("train", tmp_path / "photos", "--out", tmp_path / "run", "--dry-run", *SMALL)
    (line,) = [line for line in got.out.splitlines() if "smallest" in line]
    assert "c00 2/1" in line
    assert "c11 13/1" in line
    assert "c06" not in line


def test_a_class_of_pictures_that_cannot_be_read(tmp_path: Path) -> None:
    classes(tmp_path, "cat")
    put(tmp_path, "dog/1.heic")
    refused(tmp_path, "'dog'", ".heic", "JPEG")


# -- what has no labels, and folders at the wrong level ----------------------------------------------------------------


@pytest.mark.parametrize("flat", ["test/1.jpg", "test/images/1.jpg", "unlabeled/1.jpg", "seg_pred/seg_pred/1.jpg"])
@pytest.mark.parametrize("skip_test", [False, True])
def test_images_without_labels_are_left_out_with_a_word(flat: str, skip_test: bool, tmp_path: Path) -> None:
    classes(tmp_path / "train", "cat", "dog")
    put(tmp_path, flat)
    chosen = select(str(tmp_path), Learning(skip_test=skip_test))
    assert chosen.class_names == ("cat", "dog")
    assert set(chosen.splits) == {"train", "val"}
    assert flat.split("/")[0] in "\n".join(chosen.notes)
    assert "convit predict" in "\n".join(chosen.notes)


def test_a_class_that_is_called_unknown(tmp_path: Path) -> None:
    classes(tmp_path / "train", "cat", "unknown")
    classes(tmp_path / "test", "unknown", images=2)
    assert splits(tmp_path) == {"train": [4, 4], "test": [0, 2]}


def test_an_empty_class_folder_among_images_to_evaluate_on(learned: tuple[Path, Path], tmp_path: Path) -> None:
    other = classes(tmp_path / "other", "cat")
    (other / "dog").mkdir()
    chosen = select(str(other), Evaluating(known=RunFolder(learned[1]).known()))
    assert (chosen.class_names, chosen.splits["all"].counts().tolist()) == (("cat", "dog"), [4, 0])
    refused(other, "'dog'")  # to learn from it is of no use


def test_a_folder_above_or_below_the_right_one(tmp_path: Path) -> None:
    classes(tmp_path / "in/photos", "cat", "dog")
    refused(tmp_path / "in", f"did you mean {tmp_path / 'in/photos'}?")
    refused(tmp_path / "in/photos/cat", f"did you mean {tmp_path / 'in/photos'}?")
    classes(tmp_path / "out/train", "cat", "dog")
    classes(tmp_path / "out/val", "cat", "dog")
    refused(tmp_path / "out/train/cat", f"did you mean {tmp_path / 'out'}?")
    classes(tmp_path / "two/one/train", "cat", "dog")
    classes(tmp_path / "two/one/val", "cat", "dog")
    classes(tmp_path / "two/other", "x")
    refused(tmp_path / "two", f"did you mean {tmp_path / 'two/one'}?")


def test_a_folder_above_the_right_one_to_evaluate_on(learned: tuple[Path, Path], tmp_path: Path) -> None:
    classes(tmp_path / "in/photos", "cat", "dog")
    with pytest.raises(InputError, match=f"unknown class 'photos'.* did you mean {tmp_path / 'in/photos'}") as caught:
        select(str(tmp_path / "in"), Evaluating(known=RunFolder(learned[1]).known()))
    assert "\n" not in str(caught.value)


def test_labels_in_a_file_beside_the_images(tmp_path: Path) -> None:
    """As in Tiny ImageNet's val."""
    classes(tmp_path / "train", "n01/images", "n02/images")
    put(tmp_path / "val/images", "val_0.JPEG", "val_1.JPEG", "val_2.JPEG")
    file = tmp_path / "val/val_annotations.txt"
    file.write_text("val_0.JPEG\tn02\t0\t0\t9\t9\nval_1.JPEG\tn01\t0\t0\t9\t9\nval_2.JPEG\tn02\t0\t0\t9\t9\n")
    val = open_source(str(tmp_path)).splits["val"]
    assert [val.class_names[target] for target in val.targets] == ["n02", "n01", "n02"]
    assert val.read(0).size == (8, 8)
    file.write_text("val_0.JPEG\tn02\nval_7.JPEG\tn01\n")
    refused(tmp_path, f"{file}, line 2", "val_7.JPEG")
    file.write_text("val_0.JPEG n02\n")
    refused(tmp_path, f"{file}, line 1")


# -- the same pictures twice -------------------------------------------------------------------------------------------


def test_the_same_pictures_in_two_splits_and_two_classes_are_said(tmp_path: Path, convit: Shell) -> None:
    data = tmp_path / "photos"
    classes(data / "train", "cat", "dog", images=6)
    classes(data / "val", "cat", "dog", images=2)
    for i in range(2):
        shutil.copy(data / f"train/cat/train{i}.png", data / f"val/cat/copy{i}.png")
    shutil.copy(data / "train/dog/train0.png", data / "train/cat/wrong.png")
    got = convit("train", data, "--out", tmp_path / "run", "--batch-size", "4", "--device", "cpu", *SMALL)
    assert got.status == 0
    both, wrong = (next(line for line in got.out.splitlines() if words in line) for words in ("in val", "two classes"))
    assert "2 pictures are both in train and in val" in both
    assert "train/cat/train0.png" in both
    assert "val/cat/copy0.png" in both
    assert "1 picture is in two classes" in wrong
    assert "wrong.png" in wrong
    assert "13 to learn from, 6 to validate" in got.out  # none is dropped
    assert both in (tmp_path / "run/log.txt").read_text()


def test_a_clean_set_is_not_talked_about(tmp_path: Path, convit: Shell) -> None:
    got = convit("train", classes(tmp_path / "photos", "cat", "dog"), "--out", tmp_path / "run", "--dry-run", *SMALL)
    assert "to the byte" not in got.out
    assert "left out" not in got.out


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Images and a run that learned from most of them; read only."""
    data, run = (tmp_path_factory.mktemp("learned") / name for name in ("photos", "run"))
    for label in ("cat", "dog"):
        (data / label).mkdir(parents=True)
        for i in range(8):
            picture(f"{label}{i}", (8 + i, 8 if label == "cat" else 9)).save(data / label / f"{i}.png")
    train(options(data, run, epochs=1))
    return data, run


@pytest.mark.parametrize("gone", [False, True])
def test_learned_images_under_other_names_are_known(gone: bool, learned: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = learned
    known = RunFolder(run).known()
    if gone:
        known = replace(known, root=str(tmp_path / "gone"))
    other = tmp_path / "other"
    for path in data.rglob("*.png"):
        place = other / path.parent.name / f"copy of {path.name}"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    (note,) = select(str(other), Evaluating(known=known)).notes
    assert "learned from" in note
    assert "14 of the 16" in note


def test_learned_images_in_a_list_are_known(learned: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = learned
    rows = [f"{path},{path.parent.name}\n" for path in data.rglob("*.png")]
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(rows))
    (note,) = select(str(tmp_path / "list.csv"), Evaluating(known=RunFolder(run).known())).notes
    assert "14 of the 16" in note


def test_other_images_are_not_taken_for_learned_ones(learned: tuple[Path, Path], tmp_path: Path) -> None:
    _, run = learned
    other = classes(tmp_path / "other", "cat", "dog")
    assert select(str(other), Evaluating(known=RunFolder(run).known())).notes == ()


# -- what changes later ------------------------------------------------------------------------------------------------


def test_images_that_are_added_after_the_split(learned: tuple[Path, Path], tmp_path: Path) -> None:
    data = put(shutil.copytree(learned[0], tmp_path / "photos"), "cat/new.png")
    run = shutil.copytree(learned[1], tmp_path / "run")
    with pytest.raises(InputError, match=r"cat/new\.png' is new.*new one, with --config"):
        train(resume(run, data=data))
    (note,) = select(str(data), Evaluating(known=replace(RunFolder(run).known(), root=str(data)))).notes
    assert "1 images are new" in note
    assert "cat/new.png" in note
    assert "--split all" in note


def test_images_that_are_added_to_those_that_a_part_was_drawn_from(tmp_path: Path, convit: Shell) -> None:
    data, run = classes(tmp_path / "photos", "cat", "dog", images=8), tmp_path / "run"
    put(data, "cover.png")
    train(options(data, run, epochs=1, per_class=3))
    put(data, "cat/new.png")
    got = convit("train", "--resume", run)
    assert got.status == 0
    assert "1 images to learn from are new" in got.out
    assert "beside the folders" not in got.out  # which was said when it began


# -- names -------------------------------------------------------------------------------------------------------------


def test_numbers_are_in_one_order_in_folders_and_lists(tmp_path: Path) -> None:
    names = ("0", "1", "2", "10")
    folder = classes(tmp_path / "photos", *names)
    rows = [f"{path},{path.parent.name}\n" for path in folder.rglob("*.png")]
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(rows))
    for data in (folder, tmp_path / "list.csv"):
        assert open_source(str(data)).class_names == names


def test_digits_the_folder_and_digits_the_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_source("digits").notes == ()
    classes(tmp_path / "digits", "a", "b")
    source = open_source("digits")
    assert len(source.class_names) == 10
    assert "./digits" in "".join(source.notes)
    assert open_source("./digits").class_names == ("a", "b")
    classes(tmp_path / "mnist", "a", "b")
    with pytest.raises(InputError, match=r"for the folder mnist here say \./mnist"):
        open_source("mnist", data_root=tmp_path / "nothing", download=False)


def test_accents_of_a_mac_in_one_split_and_of_others_in_the_next(tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    classes(tmp_path / "train", composed, "bar")
    classes(tmp_path / "val", decomposed, "bar", images=2)
    assert splits(tmp_path) == {"train": [4, 4], "val": [2, 2]}


# -- found by attacks --------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="pipes and links")
def test_a_file_of_labels_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    classes(tmp_path / "train", "a", "b")
    put(tmp_path, "val/images/0.png")
    os.mkfifo(tmp_path / "val/val_annotations.txt")
    with pytest.raises(InputError, match="val_annotations"):
        select(str(tmp_path), Learning())


def test_unknown_classes_of_a_list(tmp_path: Path) -> None:
    put(tmp_path, "0.png")
    (tmp_path / "list.csv").write_text("path,label\n0.png,zebra\n")
    known = Known(class_names=("ape", "bee"))
    with pytest.raises(InputError, match="unknown class 'zebra'"):
        select(str(tmp_path / "list.csv"), Evaluating(known=known))


@pytest.mark.skipif(os.name != "posix", reason="pipes and links")
def test_a_class_on_a_disk_that_is_missing_is_said(tmp_path: Path) -> None:
    classes(tmp_path, "a", "b")
    (tmp_path / "c").symlink_to("/nowhere/c")
    assert any("'c'" in note for note in open_source(str(tmp_path)).notes)


@pytest.mark.skipif(os.name != "posix", reason="pipes and links")
def test_a_pipe_or_a_link_to_itself_counts_as_an_image_that_does_not_decode(tmp_path: Path) -> None:
    classes(tmp_path, "a", "b")
    os.mkfifo(tmp_path / "a/pipe.png")
    (tmp_path / "b/self.png").symlink_to("self.png")
    bad = check(select(str(tmp_path), Learning())).bad
    assert {image.name for image in bad} == {"a/pipe.png", "b/self.png"}


def test_splits_inside_some_classes_are_said(tmp_path: Path) -> None:
    for place in ("cat/train", "cat/test", "dog/train", "dog/test", "bird/train"):
        put(tmp_path, f"{place}/0.png", f"{place}/1.png")
    assert any("taken together" in note for note in open_source(str(tmp_path)).notes)


def test_uncompressed_pictures_of_one_size_are_told_apart(tmp_path: Path) -> None:
    for name, colour in (("a", "red"), ("b", "blue")):
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.new("RGB", (4, 4), colour).save(tmp_path / name / f"{i}.bmp")
    contents = open_source(str(tmp_path)).splits["all"].contents()
    assert contents[0] == contents[1] != contents[2]


def test_a_list_from_windows(tmp_path: Path) -> None:
    classes(tmp_path, "a", "b")
    files = sorted(tmp_path.rglob("*.png"))
    rows = (f"{file.parent.name}\\{file.name},{file.parent.name}\n" for file in files)
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(rows))
    assert len(open_source(str(tmp_path / "list.csv")).splits["all"]) == len(files)
