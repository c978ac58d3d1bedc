"""``--json``: every key is explained in docs/json.md."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.cli.command import Shell

EXPLAINED = (Path(__file__).parents[2] / "docs/json.md").read_text()
BY_DATA = {"splits", "images"}
"""Keys whose objects have the names of the user's splits as keys."""


def keys(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for one in value:
            yield from keys(one)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            if key not in BY_DATA or isinstance(inner, list):
                yield from keys(inner)


def test_every_key_is_explained(animals: Path, run: Path, tmp_path: Path, shell: Shell) -> None:
    picture = next(animals.rglob("*.png"))
    (tmp_path / "damaged.png").write_bytes(picture.read_bytes()[:60])
    answers = ("--reject", "0.5", "--coverage", "0.5")
    for words in (
        ("predict", run, picture, tmp_path / "damaged.png", *answers),
        ("evaluate", run, animals, *answers),
        ("evaluate", run, run, animals),
        ("check", animals, "--run", run, "--write", tmp_path / "list.csv", "--out", tmp_path / "check"),
        ("inspect", run, picture, "--out", tmp_path / "seen"),
        ("models",),
    ):
        found = set(keys(json.loads(shell(*words, "--json").out)))
        assert len(found) > 4
        unexplained = {key for key in found if f"`{key.removesuffix('_interval')}`" not in EXPLAINED}
        assert not unexplained, words[0]
