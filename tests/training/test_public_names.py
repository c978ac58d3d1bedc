"""What ``convit.training`` offers, part of which is imported when it is asked for."""

import importlib

import pytest

import convit.training


@pytest.mark.parametrize("name", convit.training.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(convit.training, name).__name__ == name


def test_no_other_name_is() -> None:
    with pytest.raises(AttributeError, match=r"'convit\.training' has no attribute 'trian'"):
        _ = convit.training.trian  # type: ignore[attr-defined]
    assert importlib.import_module("convit.training.plots") is not None
