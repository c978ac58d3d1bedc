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
from convit.calibration import HIGHEST, LOWEST, PRIOR, Calibration, fit_temperature
from convit.classifier import Classifier
from convit.errors import InputError
from convit.export import export_onnx, export_torch
from convit_onnx import OnnxClassifier
from tests.test_export import made, random_images


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

    assert found.temperature == pytest.approx(temperature, rel=0.03)
    assert found.images == 20_000


@pytest.mark.parametrize("images", [1, 5, 300])
def test_it_is_the_minimum_of_the_loss_and_the_prior(images: int) -> None:
    logits, targets = drawn(2.0, images)
    found = fit_temperature(logits, targets).temperature

    def objective(temperature: float) -> float:
        z = logits / temperature
        losses = np.log(np.exp(z).sum(axis=1)) - z[np.arange(images), targets]
        return float(losses.sum() + PRIOR * (1 / temperature - 1 + np.log(temperature)))

    assert all(objective(found) < objective(found * factor) for factor in (0.9, 0.99, 1.01, 1.1))


def test_right_on_all_images_says_little() -> None:
    """The likelihood alone would take a temperature of 0, and every probability would be 1."""
    logits = np.tile([3.0, 0.0, 0.0], (20, 1))

    assert 0.5 < fit_temperature(logits, np.zeros(20, int)).temperature < 1
    assert fit_temperature(np.tile([30.0, 0.0], (500, 1)), np.zeros(500, int)).temperature == pytest.approx(1, abs=1e-3)


def test_few_images_move_it_less_than_many() -> None:
    few, many = (fit_temperature(*(part[:n] for part in drawn(4.0, 2000))).temperature for n in (3, 2000))

    assert 1 < few < many


def test_wrong_on_all_images_ends_at_the_bound() -> None:
    assert fit_temperature(np.tile([9.0, 0.0], (900, 1)), np.ones(900, int)).temperature == HIGHEST


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


@pytest.mark.parametrize("temperature", [2.5, 0.3])
def test_exports_are_calibrated_too(temperature: float, pictures: list[Image.Image], tmp_path: Path) -> None:
    for library in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(library, reason='not installed: pip install "convit[export]"')
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
    assert json.loads(json.loads(extra["metadata.json"])["calibration"]) == {"temperature": 2.5, "images": 300}
