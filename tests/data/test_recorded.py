"""What a run recorded is chosen again by name: nothing is drawn, and what changed since is named."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from convit.data.select import Learning, check, select
from tests.data.made import damage, labels, names, photos, refused

CHOICES = [
    {},
    {"fraction": 0.5, "seed": 3},
    {"per_class": 2},
    {"classes": 2, "seed": 6},
    {"classes": 2, "fraction": 0.5, "skip_test": True},
]


@pytest.mark.parametrize("options", CHOICES)
@pytest.mark.parametrize("official", [False, True])
def test_a_recorded_choice_is_made_again_without_a_draw(
    options: dict[str, Any], official: bool, animals: Path, divided: Path
) -> None:
    data = str(divided if official else animals)
    first = select(data, Learning(**options))
    # backwards, and of another seed: a draw would show
    recorded = {split: chosen[::-1] for split, chosen in names(first).items()}
    again = select(data, Learning(**(options | {"seed": 99}), recorded=recorded))
    assert names(again) == recorded
    assert again.class_names == first.class_names
    assert all(labels(again.splits[split]) == labels(images) for split, images in first.splits.items())
    assert again.facts() == first.facts()


@pytest.mark.parametrize("official", [False, True])
def test_images_that_are_new_or_gone(official: bool, animals: Path, divided: Path) -> None:
    data, inside = (divided, divided / "train") if official else (animals, animals)
    recorded = names(select(str(data), Learning()))
    picture = (inside / "ape/0.png").read_bytes()
    (inside / "bee/new.png").write_bytes(picture)
    said = refused(data, Learning(recorded=recorded))
    assert f"{data.name}: other images than when the run started: " in said
    assert "bee/new.png' is new; expected the same" in said
    (inside / "bee/new.png").unlink()
    (inside / "ape/0.png").unlink()
    (inside / "ape/1.png").unlink()
    assert "ape/0.png' is gone, and 1 more; expected the same" in refused(data, Learning(recorded=recorded))


def test_a_new_image_to_validate_or_test_on(divided: Path) -> None:
    choice = Learning(fraction=0.5)
    choice = replace(choice, recorded=names(select(str(divided), choice)))
    for split in ("val", "test"):
        (divided / split / "ape/new.png").write_bytes((divided / "val/ape/0.png").read_bytes())
        assert f"'{split}/ape/new.png' is new" in refused(divided, choice)
        (divided / split / "ape/new.png").unlink()
    assert select(str(divided), choice).splits.keys() == {"train", "val", "test"}


def test_a_list_in_another_order_or_divided_otherwise(animals: Path, tmp_path: Path) -> None:
    files = [(path, path.parent.name) for path in sorted(animals.rglob("*.png"))]
    rows = [f"{path},{label},{'val' if path.stem == '0' else 'train'}\n" for path, label in files]
    path = tmp_path / "list.csv"
    path.write_text("path,label,split\n" + "".join(rows))
    first = select(str(path), Learning())
    path.write_text("path,label,split\n" + "".join(reversed(rows)))
    again = select(str(path), Learning(recorded=names(first)))
    assert names(again) == names(first)
    assert labels(again.splits["train"]) == labels(first.splits["train"])
    path.write_text("path,label,split\n" + "".join(rows).replace("val", "train", 1))
    assert "the same names, in other splits" in refused(path, Learning(recorded=names(first)))


def test_what_was_left_out_is_not_new(animals: Path) -> None:
    damage(animals / "cow/3.png")
    bad = tuple(check(select(str(animals), Learning())).bad)
    choice = Learning(leave_out=bad)
    choice = replace(choice, recorded=names(select(str(animals), choice)))
    assert names(select(str(animals), choice)) == choice.recorded
    assert "'cow/3.png' is new" in refused(animals, replace(choice, leave_out=()))


def test_a_class_beside_those_that_were_taken_plays_no_part(animals: Path) -> None:
    choice = Learning(classes=2, seed=1)
    first = select(str(animals), choice)
    photos(animals, {"dog": 3})
    again = select(str(animals), replace(choice, recorded=names(first)))
    assert (names(again), again.class_names) == (names(first), first.class_names)


@pytest.mark.parametrize("recorded", [{}, {"train": []}, {"train": ["x"], "val": ["y"]}, {"other": ["ape/0.png"]}])
def test_a_record_that_is_of_something_else(recorded: dict[str, list[str]], animals: Path) -> None:
    assert "other images than when the run started" in refused(animals, Learning(recorded=recorded))
