"""Images to learn from: the same seed the same choice, what was recorded is chosen again, what is bad is left out."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from convit.data import ImageSet, open_source
from convit.data.select import Evaluating, Learning, check, pictures, refuse_bad, select
from convit.errors import InputError
from convit.events import Advanced, Event, PassBegan
from convit.files import fingerprint
from tests import helpers
from tests.data.made import COUNTS, WRITTEN, Labelled, damage, labels, names, photos, refused, sizes

# -- which images ------------------------------------------------------------------------------------------------------


def test_an_undivided_set_is_divided_by_seed(animals: Path) -> None:
    chosen = select(str(animals), Learning())
    assert sizes(chosen) == {"train": 15, "val": 3}
    assert chosen.splits["val"].counts().tolist() == [1, 1, 1]
    assert sorted(chosen.splits["train"].names + chosen.splits["val"].names) == sorted(
        open_source(str(animals)).splits["all"].names
    )
    assert (chosen.name, chosen.root, chosen.available) == ("animals", str(animals.resolve()), 15)
    assert names(select(str(animals), Learning())) == names(chosen)
    assert names(select(str(animals), Learning(seed=1))) != names(chosen)
    assert sizes(select(str(animals), Learning(val_fraction=0.5))) == {"train": 9, "val": 9}


def test_official_splits_are_taken_as_they_are(divided: Path) -> None:
    chosen = select(str(divided), Learning(seed=5))
    assert sizes(chosen) == {"train": 18, "val": 3, "test": 4}
    assert sizes(select(str(divided), Learning(skip_test=True))) == {"train": 18, "val": 3}
    assert set(select(str(divided), Learning(skip_test=True)).source.splits) == {"train", "val"}  # not even decoded


def test_the_same_choice_for_ever() -> None:
    """Fingerprints of the names that are chosen: saved runs rely on the draws."""
    choices = (
        Learning(),
        Learning(seed=3, classes=4, val_fraction=0.2),
        Learning(seed=3, fraction=0.1, skip_test=True),
        Learning(seed=1, classes=3, per_class=7),
    )
    assert [fingerprint(names(select("digits", choice))) for choice in choices] == GOLDEN


GOLDEN = ["40555e63445d8a7e", "cefe8290bf52aac1", "3be1e2cf4f78717b", "929e8d5bc0bd8144"]


@pytest.mark.parametrize(("draw", "train"), [({"fraction": 0.5}, [2, 2, 3]), ({"per_class": 3}, [3, 3, 3])])
def test_a_subset_is_drawn_of_the_training_images_alone(draw: dict[str, Any], train: list[int], animals: Path) -> None:
    whole, some = select(str(animals), Learning()), select(str(animals), Learning(**draw))
    assert set(some.splits["train"].names) < set(whole.splits["train"].names)
    assert some.splits["val"].names == whole.splits["val"].names
    assert some.splits["train"].counts().tolist() == train
    assert some.available == whole.available == 15


def test_some_of_the_classes(divided: Path) -> None:
    chosen = select(str(divided), Learning(classes=2, seed=1))
    everything = select(str(divided), Learning())
    assert chosen.class_names == everything.class_names[:2]
    for split, images in chosen.splits.items():
        assert images.class_names == chosen.class_names
        expected = {
            name: label for name, label in labels(everything.splits[split]).items() if label in chosen.class_names
        }
        assert labels(images) == expected
    for count in (1, 4):
        said = refused(divided, Learning(classes=count))
        assert f"classes: got {count}, expected 2 to 3, the classes of divided" in said


@pytest.mark.parametrize("write", WRITTEN)
def test_every_kind_of_source_gives_the_same_choice(
    write: Callable[[Labelled, Path], str], animals: Path, tmp_path: Path
) -> None:
    def content(images: ImageSet) -> list[tuple[str, bytes]]:
        return [(images.class_names[images.targets[i]], images.read(i).tobytes()) for i in range(len(images))]

    (tmp_path / "in").mkdir()
    data = write([(path, path.parent.name) for path in sorted(animals.rglob("*.png"))], tmp_path / "in")
    for choice in (Learning(seed=2), Learning(seed=2, classes=2, per_class=3)):
        got, expected = select(data, choice), select(str(animals), choice)
        assert got.class_names == expected.class_names
        for split in ("train", "val"):
            assert content(got.splits[split]) == content(expected.splits[split])
        again = select(data, replace(choice, recorded=names(got)))
        assert names(again) == names(got)
        assert got.root == select(got.root, choice).root
    (images,) = select(data, Evaluating()).splits.values()
    assert content(images) == content(open_source(str(animals)).splits["all"])


def test_what_cannot_be_learned_from(tmp_path: Path) -> None:
    photos(tmp_path / "a/test", COUNTS)
    for choice in (Learning(), Learning(skip_test=True)):
        assert "a: only a test split in it; expected a train/ folder or class folders" in refused(
            tmp_path / "a", choice
        )
    photos(tmp_path / "b", {"ape": 1, "bee": 1})
    assert "one image per class, none left to validate on; expected at least 2" in refused(tmp_path / "b", Learning())
    photos(tmp_path / "c", {"ape": 3, "bee": 2})
    assert "per_class: 4; expected 1 to 1" in refused(tmp_path / "c", Learning(per_class=4))
    assert "no such folder or data set" in refused(tmp_path / "d", Learning())
    assert "only one class, 'ape'; expected at least 2" in refused(photos(tmp_path / "e", {"ape": 3}), Learning())


# -- what is left out --------------------------------------------------------------------------------------------------


def test_images_that_do_not_decode(divided: Path) -> None:
    bad = ["train/ape/2.png", "train/cow/0.png", "val/cow/0.png", "test/bee/1.png"]
    for name in bad:
        damage(divided / name)
    choice = Learning(per_class=1)
    heard: list[Event] = []
    chosen = select(str(divided), choice)
    found = check(chosen, heard.append).bad
    assert [image.name for image in found] == bad  # also of those that were not drawn
    assert [event for event in heard if isinstance(event, PassBegan)] == [
        PassBegan("checking train images", 18),
        PassBegan("checking val images", 3),
        PassBegan("checking test images", 4),
    ]
    assert sum(event.images for event in heard if isinstance(event, Advanced)) == 25
    said = helpers.refused(lambda: refuse_bad(chosen.name, found))
    assert said.startswith("divided: 4 files do not decode: train/ape/2.png (not an image")
    assert said.endswith("; and 1 more; mend them, or leave them out with --skip-bad")
    refuse_bad(chosen.name, [])


def test_what_is_left_out_is_dropped_before_anything_is_drawn(animals: Path, tmp_path: Path) -> None:
    damage(animals / "cow/3.png")
    choice = Learning(seed=4, fraction=0.5)
    bad = check(select(str(animals), choice)).bad
    chosen = select(str(animals), replace(choice, leave_out=tuple(bad)))
    (animals / "cow/3.png").unlink()
    assert names(chosen) == names(select(str(animals), choice))
    assert chosen.left_out == tuple(bad)
    assert check(chosen).bad == []
    photos(tmp_path / "two", {"ape": 2, "bee": 2})
    for name in ("0.png", "1.png"):
        damage(tmp_path / "two/bee" / name)
    all_bad = tuple(check(select(str(tmp_path / "two"), Learning())).bad)
    assert "no image that decodes in class 'bee'" in refused(tmp_path / "two", Learning(leave_out=all_bad))


def test_files_of_a_list_that_are_not_there(animals: Path, tmp_path: Path) -> None:
    rows = [f"{path},{path.parent.name}\n" for path in sorted(animals.rglob("*.png"))]
    path = tmp_path / "list.csv"
    path.write_text("path,label\n" + "".join(rows) + f"{animals}/gone.png,ape\n")
    assert "no file" in refused(path, Learning())
    (bad,) = check(select(str(path), Learning(missing=True))).bad
    assert bad.name == f"{animals}/gone.png"
    assert sizes(select(str(path), Learning(missing=True, leave_out=(bad,)))) == {"train": 15, "val": 3}


# -- around it ---------------------------------------------------------------------------------------------------------


def test_pictures(animals: Path, tmp_path: Path) -> None:
    (animals / "notes.txt").write_text("x")
    given = [animals / "cow/1.png", animals / "ape", animals / "notes.txt"]
    found = list(pictures(given).paths)
    assert found == [given[0], *(animals / f"ape/{i}.png" for i in range(6)), given[2]]
    (tmp_path / "empty").mkdir()
    for path, said in ((tmp_path / "empty", "no picture in it"), (tmp_path / "none", "no such file or folder")):
        with pytest.raises(InputError, match=said):
            pictures([path])


LIGHT = """
import importlib.util, sys
from types import ModuleType
bare = ModuleType("convit")  # the package's own __init__ is heavy
bare.__path__ = list(importlib.util.find_spec("convit").submodule_search_locations)
sys.modules["convit"] = bare
import convit.data.images, convit.data.sources.folder
from convit.data.select import Evaluating, Learning, select
select(sys.argv[1], Learning()).facts()
select("digits", Evaluating())
heavy = {"torch", "torchvision", "timm", "datasets", "huggingface_hub", "pyarrow", "sklearn", "scipy"}
print(sorted(heavy & set(sys.modules)))
import convit.data
print(convit.data.Preprocess.__name__, "torch" in sys.modules)
"""


def test_choosing_needs_no_torch(animals: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT, str(animals)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "Preprocess True"]
