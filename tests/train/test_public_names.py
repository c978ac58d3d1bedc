"""What ``convit.train`` offers, part of which is imported when it is asked for."""

import importlib

import pytest

import convit.train


@pytest.mark.parametrize("name", convit.train.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(convit.train, name).__name__ == name


def test_no_other_name_is() -> None:
    with pytest.raises(AttributeError, match=r"'convit\.train' has no attribute 'trian'"):
        _ = convit.train.trian  # type: ignore[attr-defined]
    assert importlib.import_module("convit.train.plots") is not None
