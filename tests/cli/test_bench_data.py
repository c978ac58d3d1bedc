"""``convit bench --preset data``: the parts of loading, and the loop."""

import json
from pathlib import Path

import pytest

from convit.benchmark import loading
from tests.cli.command import Shell
from tests.helpers import noise


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for label in ("a", "b"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(2):
            noise(240, 320, number).save(tmp_path / "photos" / label / f"{number}.jpg")
    return tmp_path / "photos"


def test_says_what_each_part_takes(photos: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "MODEL", "convit_micro_patch4_32")
    monkeypatch.setattr(loading, "SIDE", 32)
    monkeypatch.setattr(loading, "STEPS", 2)
    got = shell("bench", "--preset", "data", "--data", photos, "--device", "cpu", "--json")
    assert got.status == 0, got.err
    parts = json.loads(got.out)
    assert all(parts[part] > 0 for part in ("decode", "copy", "read", "augment", "normalise", "step"))
    assert parts["loops"].keys() == parts["waits"].keys()
    assert all(0 <= wait < 1 for wait in parts["waits"].values())
    assert "320 x 240" in parts["images"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--data digits", "data: got digits without --preset data"),
        ("--preset data --memory", "preset: got it with memory"),
        ("convit_micro_patch4_32 --preset data", "preset: got it with models"),
    ],
)
def test_what_does_not_fit(words: str, said: str, shell: Shell) -> None:
    shell.refuses("bench", *words.split(), says=(said,))


def test_photos_are_of_their_classes(tmp_path: Path) -> None:
    images = loading.make_photos(tmp_path, 4, size=(64, 48))
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.jpg")) == sorted(images.names)
    assert images.read(0).size == (64, 48)
    assert len({images.read(i).tobytes() for i in range(4)}) == 4
