"""Fixtures: a shell, images and a run on them, a saved model."""

from pathlib import Path

import pytest

from convit import Classifier, create_model
from convit.data import Preprocess
from tests.cli.conftest import animals, run, shell, trained  # noqa: F401
from tests.outside.handed_over import ARGS, MODEL


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small classifier of three classes."""
    classifier = Classifier(
        create_model(MODEL, num_classes=3, **ARGS),
        Preprocess(image_size=(8, 8)),
        ("ape", "bee", "cow"),
        model_name=MODEL,
        model_args=ARGS,
    )
    classifier.save(tmp_path / "model")
    return tmp_path / "model"
