"""Folders as strangers have them: what is a class, what is left out, and what is said of it."""

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
from tests.data.made import fails as refused
from tests.outside.folders import classes, picture, put, splits
from tests.training.small import options, resume

# -- what is said before training --------------------------------------------------------------------------------------


def test_what_was_found_and_left_out_is_said(tmp_path: Path, shell: Shell) -> None:
    data = classes(tmp_path / "photos", "cat", "dog", images=5)
    picture("wide", (30, 20)).save(data / "dog/wide.png")
    put(data, "cover.jpg", "cat/IMG_1.HEIC", "cat/notes.txt", "cat/@eaDir/photos0.png/SYNOPHOTO_THUMB_M.jpg")
    for name in ("#recycle", "lost+found", "$RECYCLE.BIN", "System Volume Information", "__MACOSX", "@eaDir"):
        put(data, f"{name}/x.jpg")
    put(data, "dog/.ipynb_checkpoints/x.png", "dog/.thumbnails/x.png", "dog/Thumbnails/x.png", "dog/Thumbs.db")
    got = shell("train", data, "--out", tmp_path / "run", "--dry-run", *SMALL)
    assert (got.status, got.err) == (0, "")
    for words in (
        "photos: 2 classes, 9 to learn from, 2 to validate",
        "(train/val): cat 4/1, dog 5/1",
        "8 to 20 px",
        "left out 1 image beside the folders",
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


def test_of_many_classes_the_smallest_and_the_largest_are_said(tmp_path: Path, shell: Shell) -> None:
    for i in range(12):
        classes(tmp_path / "photos", f"c{i:02}", images=3 + i)
    got = shell("train", tmp_path / "photos", "--out", tmp_path / "run", "--dry-run", *SMALL)
    (line,) = [line for line in got.out.splitlines() if "smallest" in line]
    assert "c00 2/1" in line
    assert "c11 13/1" in line
    assert "c06" not in line


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


def test_the_same_pictures_in_two_splits_and_two_classes_are_said(tmp_path: Path, shell: Shell) -> None:
    data = tmp_path / "photos"
    classes(data / "train", "cat", "dog", images=6)
    classes(data / "val", "cat", "dog", images=2)
    for i in range(2):
        shutil.copy(data / f"train/cat/train{i}.png", data / f"val/cat/copy{i}.png")
    shutil.copy(data / "train/dog/train0.png", data / "train/cat/wrong.png")
    got = shell("train", data, "--out", tmp_path / "run", "--batch-size", "4", "--device", "cpu", *SMALL)
    assert got.status == 0
    both, wrong = (next(line for line in got.out.splitlines() if words in line) for words in ("in val", "two classes"))
    assert "2 pictures are both in train and in val" in both
    assert "train/cat/train0.png" in both
    assert "val/cat/copy0.png" in both
    assert "1 picture is in two classes" in wrong
    assert "wrong.png" in wrong
    assert "13 to learn from, 6 to validate" in got.out  # none is dropped
    assert both in (tmp_path / "run/log.txt").read_text()


def test_a_clean_set_is_not_talked_about(tmp_path: Path, shell: Shell) -> None:
    got = shell("train", classes(tmp_path / "photos", "cat", "dog"), "--out", tmp_path / "run", "--dry-run", *SMALL)
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
    assert "1 image added since the run" in note
    assert "cat/new.png" in note
    assert "--split all" in note


def test_images_that_are_added_to_those_that_a_part_was_drawn_from(tmp_path: Path, shell: Shell) -> None:
    data, run = classes(tmp_path / "photos", "cat", "dog", images=8), tmp_path / "run"
    put(data, "cover.png")
    train(options(data, run, epochs=1, per_class=3))
    put(data, "cat/new.png")
    got = shell("train", "--resume", run)
    assert got.status == 0
    assert "1 image to learn from came since" in got.out
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
