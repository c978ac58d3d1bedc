"""The temperature is the likeliest one, held near 1 where little is known; what is no calibration is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import convit
from convit.answers import answers, in_sets, thresholds
from convit.calibration import (
    HIGHEST,
    LOWEST,
    PRIOR,
    Calibration,
    calibrate,
    fit_temperature,
    lower_thresholds,
    probabilities_of,
    scores,
)
from convit.classifier import Classifier
from convit.data import evaluation_transform
from convit.errors import InputError
from convit.export import export_onnx, export_torch
from convit_onnx import OnnxClassifier
from tests.helpers import needs_export
from tests.test_export import CLASSES, made, random_images


def drawn(temperature: float, images: int, classes: int = 7, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Logits, and labels that are drawn with the probabilities ``softmax(logits / temperature)``."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=3, size=(images, classes))
    p = np.exp(logits / temperature)
    p /= p.sum(axis=1, keepdims=True)
    return logits, (p.cumsum(axis=1) < rng.random((images, 1))).sum(axis=1)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_finds_the_temperature_that_labels_were_drawn_with(temperature: float) -> None:
    found = fit_temperature(*drawn(temperature, 20_000))

    assert found == pytest.approx(temperature, rel=0.03)


@pytest.mark.parametrize("images", [1, 5, 300])
def test_it_is_the_minimum_of_the_loss_and_the_prior(images: int) -> None:
    logits, targets = drawn(2.0, images)
    found = fit_temperature(logits, targets)

    def objective(temperature: float) -> float:
        z = logits / temperature
        losses = np.log(np.exp(z).sum(axis=1)) - z[np.arange(images), targets]
        return float(losses.sum() + PRIOR * (1 / temperature - 1 + np.log(temperature)))

    assert all(objective(found) < objective(found * factor) for factor in (0.9, 0.99, 1.01, 1.1))


def test_right_on_all_images_says_little() -> None:
    """The likelihood alone would take a temperature of 0, and every probability would be 1."""
    logits = np.tile([3.0, 0.0, 0.0], (20, 1))

    assert 0.5 < fit_temperature(logits, np.zeros(20, int)) < 1
    assert fit_temperature(np.tile([30.0, 0.0], (500, 1)), np.zeros(500, int)) == pytest.approx(1, abs=1e-3)


def test_few_images_move_it_less_than_many() -> None:
    few, many = (fit_temperature(*(part[:n] for part in drawn(4.0, 2000))) for n in (3, 2000))

    assert 1 < few < many


def test_wrong_on_all_images_ends_at_the_bound() -> None:
    assert fit_temperature(np.tile([9.0, 0.0], (900, 1)), np.ones(900, int)) == HIGHEST


def test_many_classes_are_looked_at_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, targets = drawn(1.7, 200)
    whole = fit_temperature(logits, targets)
    monkeypatch.setattr("convit.calibration._CHUNK", 50)

    assert fit_temperature(logits, targets) == whole


@pytest.mark.parametrize(("logits", "targets"), [((0, 3), (0,)), ((4, 3), (3,)), ((4,), (4,))])
def test_shapes_that_do_not_fit(logits: tuple[int, ...], targets: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        fit_temperature(np.zeros(logits), np.zeros(targets, int))


@pytest.mark.parametrize(
    "change",
    [
        *({"temperature": value} for value in (0, -1, LOWEST / 2, HIGHEST * 2, float("nan"), "1.2", True, None)),
        *({"images": value} for value in (0, -3, 2.5, "20", True, 10**30)),
        {"more": 1},
        *({"reject_below": value} for value in ([], {"0.051": 1.0}, {"0.05": "1"}, {"0.05": 2.0, "0.10": 1.0})),
        *({"in_set_from": value} for value in (3, {"0.95": 1.5}, {"0.05": 0.5}, {"0.90": 0.1, "0.95": 0.2})),
    ],
)
def test_what_no_calibration_can_be(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="calibration"):
        Calibration.from_dict({"temperature": 1.2, "images": 20} | change)


# -- of a classifier ---------------------------------------------------------------------------------------------------


def calibrated(temperature: float = 2.5) -> Classifier:
    classifier = made()
    classifier.calibration = Calibration(temperature=temperature, images=300)
    return classifier


@pytest.fixture
def pictures() -> list[Image.Image]:
    pixels = np.random.default_rng(3).integers(0, 256, (5, 20, 30, 3), dtype=np.uint8)
    return [Image.fromarray(each) for each in pixels]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    calibrated().save(tmp_path / "run")
    return tmp_path / "run"


def changed(folder: Path, **values: Any) -> Path:
    """The folder with other values in the calibration of its config.json."""
    config = json.loads((folder / "config.json").read_text())
    config["calibration"] |= values
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_its_probabilities_are_those_of_logits_over_temperature(pictures: list[Image.Image]) -> None:
    plain = made().probabilities(pictures).double().log()
    expected = (plain / 2.5).softmax(dim=-1).float()

    torch.testing.assert_close(calibrated().probabilities(pictures), expected)
    best = calibrated().predict(pictures[0])
    assert [p.class_name for p in best] == [p.class_name for p in made().predict(pictures[0])]
    assert best[0].probability == pytest.approx(expected[0].max().item(), rel=1e-5)
    assert convit.inspect(calibrated(), pictures[0]).predictions[0].probability == pytest.approx(
        best[0].probability, rel=1e-4
    )
    assert convit.inspect(calibrated(), pictures[0]).masking[0].best.probability == pytest.approx(
        best[0].probability, rel=1e-4
    )


def test_round_trip(folder: Path, pictures: list[Image.Image]) -> None:
    loaded = convit.load(folder)

    assert loaded.calibration == Calibration(temperature=2.5, images=300)
    assert torch.equal(loaded.probabilities(pictures), calibrated().probabilities(pictures))


def test_the_weights_are_the_same_file_with_and_without(folder: Path, tmp_path: Path) -> None:
    """A run writes its best model first, and its temperature at the end: a kill between leaves two files that fit."""
    made().save(tmp_path / "before")
    shutil.copy(tmp_path / "before/model.safetensors", folder)

    assert convit.load(folder).calibration is not None
    shutil.copy(tmp_path / "before/config.json", folder)
    assert convit.load(folder).calibration is None


@pytest.mark.parametrize(
    "change", [{"temperature": 2.6}, {"images": 301}, {"checksum": "0" * 16}, {"temperature": 0}, {"checksum": 3}]
)
def test_a_calibration_that_was_changed_is_refused(change: dict[str, Any], folder: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json.*calibration.*expected"):
        convit.load(changed(folder, **change))


def test_a_calibration_of_other_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    other = calibrated()
    with torch.no_grad():
        other.model.head.weight.mul_(1.5)
    other.save(tmp_path / "other")
    shutil.copy(tmp_path / "other/model.safetensors", folder)

    with pytest.raises(InputError, match="calibration is not as it was written"):
        convit.load(folder)


def test_the_card_says_it(folder: Path) -> None:
    assert "softmax(logits / 2.5)" in convit.load(folder).card()
    assert "not calibrated" in made().card()


@needs_export
@pytest.mark.parametrize("temperature", [2.5, 0.3])
def test_exports_are_calibrated_too(temperature: float, pictures: list[Image.Image], tmp_path: Path) -> None:
    classifier = calibrated(temperature)
    expected = classifier.probabilities(pictures).numpy()

    export_onnx(classifier, tmp_path / "a.onnx")
    file = OnnxClassifier(tmp_path / "a.onnx")
    np.testing.assert_allclose(file.probabilities(pictures), expected, atol=2e-6)
    assert file.calibration == classifier.calibration
    export_onnx(made(), tmp_path / "plain.onnx")
    assert OnnxClassifier(tmp_path / "plain.onnx").calibration is None


def test_exported_programs_are_calibrated_too(tmp_path: Path) -> None:
    images = random_images(3, 3, 16, 16)
    export_torch(calibrated(), tmp_path / "a.pt2", dynamic_size=True)
    extra = {"metadata.json": ""}
    module = torch.export.load(tmp_path / "a.pt2", extra_files=extra).module()

    with torch.no_grad():
        torch.testing.assert_close(module(images), calibrated().model(images) / 2.5)
    found = json.loads(json.loads(extra["metadata.json"])["calibration"])
    assert Calibration.from_dict(found) == calibrated().calibration


# -- thresholds --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("images", [40, 999])
def test_thresholds_keep_what_they_promise(images: int) -> None:
    """On other images of the same kind, on average over what was drawn for the validation."""
    rejected, covered = [], []
    for seed in range(60):
        found = calibrate(*drawn(1.5, images, seed=seed))
        logits, targets = drawn(1.5, 500, seed=1000 + seed)
        p = probabilities_of(logits, found.temperature)
        rejected.append((scores(logits, found.temperature) < found.reject_threshold(0.1)).mean())
        covered.append(in_sets(p, found.set_threshold(0.9))[np.arange(500), targets].mean())

    assert 0.07 < np.mean(rejected) < 0.108
    assert 0.892 < np.mean(covered) < 0.94


def test_thresholds_by_hand() -> None:
    """Of 20 values 21 * 5% is 1: the smallest; 1% would take 99 of them."""
    found = lower_thresholds(np.arange(20.0, 0.0, -1.0), {"0.01": 0.01, "0.05": 0.05, "0.10": 0.1})

    assert found.keys() == {"0.05", "0.10"}
    assert 0.999 < found["0.05"] < 1
    assert 1.999 < found["0.10"] < 2


def test_thresholds_below_zero_are_rounded_down_too() -> None:
    assert -3.001 < lower_thresholds(np.full(30, -3.0), {"0.05": 0.05})["0.05"] < -3


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"reject": 0.01}, "which 40 validation images cannot tell; expected 0.03 or more"),
        ({"coverage": 0.99}, "which 40 validation images cannot tell; expected 0.97 or less"),
        ({"reject": 0.055}, "expected 0.01 to 0.50, in steps of 0.01"),
        ({"coverage": 0.2}, "expected 0.50 to 0.99"),
    ],
)
def test_thresholds_that_cannot_be_met(asked: dict[str, float], says: str, pictures: list[Image.Image]) -> None:
    classifier = made()
    classifier.calibration = calibrate(*drawn(1.5, 40))

    with pytest.raises(InputError, match=says):
        classifier.answer(pictures, **asked)
    with pytest.raises(InputError, match="not calibrated"):
        made().answer(pictures, **asked)


def test_answers(pictures: list[Image.Image]) -> None:
    classifier = made()
    found = classifier.probabilities(pictures).numpy()
    middle = float(np.sort(found, axis=None)[-9:-7].mean())
    classifier.calibration = Calibration(temperature=1.0, images=99, in_set_from={"0.95": middle})

    for answer, row in zip(classifier.answer(pictures, 2, coverage=0.95), found, strict=True):
        expected = {CLASSES[i] for i in range(5) if row[i] >= middle} | {CLASSES[int(row.argmax())]}
        assert answer.classes is not None
        assert set(answer.classes) == expected
        assert answer.classes[0] == answer.predictions[0].class_name
        assert (answer.score, answer.none_of_these, len(answer.predictions)) == (None, None, 2)


@needs_export
def test_files_give_the_same_rejections_and_sets_on_300_pictures(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    photos = [
        Image.fromarray(rng.integers(low, low + 90, (16, 16, 3)).astype(np.uint8))
        for low in rng.integers(0, 160, 300).tolist()
    ]
    classifier = made()
    with torch.no_grad():
        logits = torch.cat([classifier._logits(photos[start : start + 50]) for start in range(0, 300, 50)]).numpy()
    targets = np.where(rng.random(300) < 0.5, logits.argmax(axis=1), rng.integers(0, 5, 300))
    classifier.calibration = calibrate(logits, targets)  # every threshold is the value of one of these very photos
    asked = {"reject": 0.2, "coverage": 0.9}
    expected = classifier.answer(photos, **asked)
    assert 0 < sum(bool(answer.none_of_these) for answer in expected) < 300
    assert len({len(answer.classes or ()) for answer in expected}) > 1

    export_onnx(classifier, tmp_path / "a.onnx")
    export_torch(classifier, tmp_path / "a.pt2")
    of_onnx = OnnxClassifier(tmp_path / "a.onnx").answer(photos, **asked)
    program = torch.export.load(tmp_path / "a.pt2").module()
    images = torch.stack([evaluation_transform(classifier.preprocess)(photo) for photo in photos])
    with torch.no_grad():
        of_torch = answers(program(images).numpy(), CLASSES, 5, thresholds(classifier.calibration, **asked))
    for found in (of_onnx, of_torch):
        assert [answer.none_of_these for answer in found] == [answer.none_of_these for answer in expected]
        assert [answer.classes for answer in found] == [answer.classes for answer in expected]
        np.testing.assert_allclose(
            [answer.predictions[0].probability for answer in found],
            [answer.predictions[0].probability for answer in expected],
            atol=2e-6,
        )
