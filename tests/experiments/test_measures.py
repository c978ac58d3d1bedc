"""What is read from, and measured of, a run that really was made."""

import json
from pathlib import Path

import pytest

from convit import InputError, load
from convit.data.select import Evaluating, select
from convit.entry import train
from convit.experiments.results import Cell, Result, read_result
from convit.experiments.settings import Settings
from convit.experiments.studies import STUDIES
from convit.experiments.studies.masking import NO_POSITION_EMBEDDING
from convit.models.variants import multiply_adds
from convit.training.evaluation import evaluate
from convit.training.options import Asked
from tests.cli.command import photos
from tests.experiments.made import MICRO


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On pictures of 8 x 8 pixels that it divides itself; in a folder of an experiment."""
    folder = tmp_path_factory.mktemp("measures")
    pets = photos(folder / "pets", {"cat": 8, "dog": 9})
    options = {"model": MICRO, "image_size": (8,), "val_fraction": 0.5, "epochs": 1, "batch_size": 4, "workers": 0}
    return train(pets, out=folder / "x/runs/a", **options).folder


def result(run: Path, variant: str = "convit") -> Result:
    cell = Cell(name="a", labels={"model": MICRO, "variant": variant, "fraction": 1.0}, asked=Asked(seed=0))
    return read_result(cell, run)


def settings(run: Path, name: str = "masking") -> Settings:
    data = str(run.parents[2] / "pets")
    return Settings(name=name, data=data, models=(MICRO,), seeds=(0,), fractions=(1.0,), layers=(3, 1))


def test_result_of_a_run(run: Path) -> None:
    got, model = result(run), load(run).model
    assert (got.split, got.images, got.epochs, got.best_epoch) == ("val", 8, 1, 1)
    assert got.top1 == got.val_top1 == json.loads((run / "evaluation.json").read_text())["top1"]
    assert got.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert got.flops == multiply_adds(MICRO, (8, 8), num_classes=2, img_size=(8, 8))
    assert got.config["lr"] > 0
    assert "non_locality" in got.history[0]


def test_masked_accuracies_are_measured_once(run: Path) -> None:
    measure = STUDIES["masking"].measure
    got = measure(settings(run), result(run))
    off = [f"no {kind} in {layers}" for layers in (1, 3) for kind in ("content", "position")]
    assert list(got) == [NO_POSITION_EMBEDDING, *off]
    classifier = load(run)
    names = json.loads((run / "split.json").read_text())["val"]
    images = select(str(run.parents[2] / "pets"), Evaluating(split="all")).splits["all"].called(names)
    classifier.model.pos_embed.data.zero_()  # type: ignore[union-attr]
    assert evaluate(classifier.model, images, classifier.preprocess).top1 == got[NO_POSITION_EMBEDDING]
    (run / "masked.json").write_text(json.dumps({NO_POSITION_EMBEDDING: -1.0}))
    again = measure(settings(run), result(run))
    assert again == {**got, NO_POSITION_EMBEDDING: -1.0}
    (run / "masked.json").unlink()
    assert list(measure(settings(run), result(run, "twin"))) == [NO_POSITION_EMBEDDING]


def test_speeds_are_measured_once(run: Path) -> None:
    results = [result(run, variant) for variant in ("twin", "convit")]
    report = STUDIES["models"].report
    (table,) = report(settings(run, "models"), results).tables
    assert report(settings(run, "models"), results).tables == [table]
    speeds = json.loads((run.parents[1] / "speed.json").read_text())[MICRO]
    assert all(f"{speed:,.0f}" in table for speed in speeds.values())


def test_damaged_run(run: Path) -> None:
    before = (run / "evaluation.json").read_text()
    (run / "evaluation.json").write_text("{")
    with pytest.raises(InputError, match=r"not readable .* delete it to make that run again"):
        result(run)
    (run / "evaluation.json").write_text(before)
