"""Facts: what a plan knows of the images, kept as JSON."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from convit.data.select import Facts, Learning, select
from convit.errors import InputError
from tests.data.made import damage, photos
from tests.helpers import refused


def test_facts_go_through_json(divided: Path) -> None:
    (divided / "train/ape/notes.txt").write_text("x")
    facts = select(str(divided), Learning(fraction=0.5)).facts()
    assert facts.counts == {"train": (3, 2, 4), "val": (2, 0, 1), "test": (1, 2, 1)}
    assert (facts.images, facts.available, facts.native_size) == (9, 18, 8)
    assert (facts.name, facts.class_names, facts.flip) == ("divided", ("ape", "bee", "cow"), True)
    assert (facts.left_out, facts.ignored, facts.sides, facts.notes) == (0, 1, (8, 8), ())
    assert Facts.from_dict(json.loads(json.dumps(facts.to_dict()))) == facts
    assert not select("digits", Learning()).facts().flip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"colour": 1}, "unknown key 'colour'"),
        ({"flip": None}, "flip"),
        ({"native_size": 0}, "native_size"),
        ({"native_size": 8.5}, "native_size"),
        ({"counts": {"train": [1, -1, 1]}}, "counts"),
        ({"counts": {"train": [1, 1]}}, "counts of other classes"),
        ({"class_names": "ape"}, "class_names"),
    ],
)
def test_facts_that_are_none(change: dict[str, Any], said: str, animals: Path) -> None:
    values = select(str(animals), Learning()).facts().to_dict()
    refused(lambda: Facts.from_dict(values | change), said)
    del values["root"]
    with pytest.raises(InputError, match="missing key 'root'"):
        Facts.from_dict(values)


def test_facts_before_the_check_are_of_what_can_be_read(tmp_path: Path) -> None:
    data = photos(tmp_path / "data", {"ape": 5, "bee": 5})
    Image.new("RGB", (40, 90)).save(data / "ape/0.png")
    facts = select(str(data), Learning(recorded=None)).facts()
    damage(data / "bee/4.png")
    assert select(str(data), Learning()).facts().native_size == facts.native_size == 8
    assert facts.sides == (8, 40)
    for path in data.rglob("*.png"):
        damage(path)
    with pytest.raises(InputError, match="not an image"):
        select(str(data), Learning()).facts()
