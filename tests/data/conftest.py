"""Folders of pictures that several modules choose from."""

from pathlib import Path

import pytest

from tests.data.made import COUNTS, photos


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    return photos(tmp_path / "animals", COUNTS)


@pytest.fixture
def divided(tmp_path: Path) -> Path:
    """Official splits: 18 images to learn from, 3 to validate on, 4 to test on."""
    photos(tmp_path / "divided/train", COUNTS)
    photos(tmp_path / "divided/val", {"ape": 2, "cow": 1})
    photos(tmp_path / "divided/test", {"ape": 1, "bee": 2, "cow": 1})
    return tmp_path / "divided"
