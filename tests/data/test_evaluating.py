"""Images to measure a model on: official splits first, then what the run itself held out; what it learned is said."""

import shutil
from pathlib import Path

import pytest

from convit.data.select import Evaluating, Known, Learning, Selection, select
from convit.events import Advanced, Event, PassBegan
from tests.data.made import COUNTS, labels, photos, refused

CLASSES = tuple(COUNTS)


def known_of(selection: Selection, *, some_classes: bool = False) -> Known:
    """What the folder of a run on these images says."""
    split = {name: list(images.names) for name, images in selection.splits.items()}
    return Known(class_names=selection.class_names, root=selection.root, split=split, some_classes=some_classes)


@pytest.fixture
def known(animals: Path) -> Known:
    return known_of(select(str(animals), Learning()))


def chosen(data: object, choice: Evaluating) -> tuple[str, int]:
    ((split, images),) = select(str(data), choice).splits.items()
    return split, len(images)


@pytest.mark.parametrize(
    ("asked", "expected"), [("auto", ("val", 3)), ("val", ("val", 3)), ("train", ("train", 15)), ("all", ("all", 18))]
)
def test_a_folder_that_the_run_divided(asked: str, expected: tuple[str, int], animals: Path, known: Known) -> None:
    choice = Evaluating(split=asked, known=known)
    assert chosen(animals, choice) == expected
    got = select(str(animals), choice)
    if expected[0] in known.split:
        assert set(got.splits[expected[0]].names) == set(known.split[expected[0]])
    learned = "the run learned from 15 of the 18 images: accuracy on them says too much"
    assert got.notes == ((learned,) if asked == "all" else ())
    assert got.available == expected[1]


def test_official_splits_come_first(tmp_path: Path, known: Known) -> None:
    data = tmp_path / "official"
    for split, count in (("train", 4), ("val", 2), ("test", 3)):
        photos(data / split, {"ape": count, "bee": count})
    for asked, expected in (("auto", ("test", 6)), ("val", ("val", 4)), ("train", ("train", 8))):
        assert chosen(data, Evaluating(split=asked, known=known)) == expected
    shutil.rmtree(data / "test")
    assert chosen(data, Evaluating(known=known)) == ("val", 4)
    shutil.rmtree(data / "val")
    assert chosen(data, Evaluating(known=known)) == ("train", 8)
    own = known_of(select(str(data), Learning()))  # now the run divides what is official
    assert chosen(data, Evaluating(known=own)) == ("val", 2)
    assert "got split all, expected one of auto, train" in refused(data, Evaluating(split="all", known=own))


def test_other_images_are_all_taken_and_matched_by_name(tmp_path: Path, known: Known) -> None:
    other = photos(tmp_path / "other", {"cow": 3, "bee": 2})
    got = select(str(other), Evaluating(known=known))
    assert got.class_names == CLASSES
    assert got.splits["all"].counts().tolist() == [0, 2, 3]
    assert "2 of the 5 files have names" not in "".join(got.notes)
    alone = photos(tmp_path / "alone", {"cow": 3})
    assert select(str(alone), Evaluating(known=known)).splits["all"].counts().tolist() == [0, 0, 3]
    yak = photos(tmp_path / "yak", {"ape": 2, "yak": 2})
    assert "unknown class 'yak' (as in " in refused(yak, Evaluating(known=known))
    assert select(str(yak), Evaluating(known=Known(root="x"))).class_names == ("ape", "yak")  # any will do
    assert select(str(yak), Evaluating()).notes == ()


def test_a_folder_that_moved(animals: Path, tmp_path: Path, known: Known) -> None:
    """All of it counts, with a note; by their names those that were not learned from can be asked for."""
    copy = shutil.copytree(animals, tmp_path / "copy")
    got = select(str(copy), Evaluating(known=known))
    assert list(got.splits) == ["all"]
    (note,) = got.notes
    assert note.startswith("15 of the 18 files have names of images that the run learned from")
    assert chosen(copy, Evaluating(split="val", known=known)) == ("val", 3)
    assert chosen(copy, Evaluating(split="train", known=known)) == ("train", 15)
    assert select(str(copy), Evaluating(split="all", known=known)).notes == ()  # it was asked for


def test_a_model_of_which_no_more_is_known(animals: Path) -> None:
    got = select(str(animals), Evaluating(known=Known(class_names=CLASSES)))
    assert list(got.splits) == ["all"]
    assert got.notes == ("it is not known which images the model learned from: they may be among these",)
    for asked in ("train", "val", "test"):
        said = refused(animals, Evaluating(split=asked, known=Known(class_names=CLASSES)))
        assert f"animals: got split {asked}, expected one of auto, all" in said


def test_splits_that_there_are_not(animals: Path, known: Known, tmp_path: Path) -> None:
    assert "got split test, expected one of auto, all, train, val" in refused(
        animals, Evaluating(split="test", known=known)
    )
    gone = Known(class_names=CLASSES, root=known.root, split={"train": [], "val": ["ape/gone.png"]})
    assert "none of the run's val images is there any more" in refused(animals, Evaluating(known=gone))
    undivided = Known(class_names=CLASSES, root=known.root)  # a run that says nothing of its split
    assert chosen(animals, Evaluating(known=undivided)) == ("all", 18)


def test_some_of_the_classes(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for split, count in (("train", 6), ("test", 3)):
        photos(data / split, dict.fromkeys(("ape", "bee", "cow", "yak"), count))
    known = known_of(select(str(data), Learning(classes=2)), some_classes=True)
    got = select(str(data), Evaluating(known=known))
    assert got.notes == ("not evaluated: 6 images of classes that the run left out by --classes",)
    assert got.class_names == known.class_names
    assert got.splits["test"].counts().tolist() == [3, 3]
    assert all(label in known.class_names for label in labels(got.splits["test"]).values())
    others = photos(
        tmp_path / "others", dict.fromkeys(sorted({"ape", "bee", "cow", "yak"} - set(known.class_names)), 2)
    )
    assert "others: no image of the run's classes" in refused(others, Evaluating(known=known))


def test_files_that_do_not_decode(animals: Path, known: Known) -> None:
    heard: list[Event] = []
    (animals / "cow/bad.png").write_bytes(b"")
    everything = Evaluating(split="all", known=known, tell=heard.append)
    got = select(str(animals), everything)
    assert heard == [PassBegan("checking images", 19), *[Advanced(1)] * 19]
    assert [image.name for image in got.left_out] == ["cow/bad.png"]
    assert len(got.splits["all"]) == got.available == 18
    assert len(select(str(animals), Evaluating(split="all", known=known, check=False)).splits["all"]) == 19
    assert chosen(animals, Evaluating(known=known)) == ("val", 3)  # only what is chosen is looked at


def test_a_list_that_names_what_is_not_there(animals: Path, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(f"path,label\n{animals}/ape/0.png,ape\n{animals}/gone.png,ape\n")
    assert chosen(path, Evaluating()) == ("all", 1)
    assert [image.name for image in select(str(path), Evaluating()).left_out] == [f"{animals}/gone.png"]
    path.write_text(f"path,label\n{animals}/gone.png,ape\n")
    assert "no image that decodes" in refused(path, Evaluating())


def test_facts_of_what_is_evaluated(animals: Path, known: Known) -> None:
    facts = select(str(animals), Evaluating(known=known)).facts()
    assert facts.counts == {"val": (1, 1, 1)}
    assert (facts.available, facts.native_size, facts.class_names) == (3, 8, CLASSES)
