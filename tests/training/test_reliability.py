"""Scores of probabilities by hand; intervals that hold what they should; the diagram."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convit.calibration import Calibration
from convit.training.mistakes import reliability, table
from convit.training.reliability import Reliability, Scores, scores_of
from convit.training.reliability_plot import draw_reliability

pytestmark = pytest.mark.pictures

RNG = np.random.default_rng(7)


def drawn(images: int, too_sure: float = 0.0) -> Scores:
    """Of a model of two classes that says p and is right with probability ``p - too_sure``."""
    p = RNG.uniform(0.6, 1, images)
    right = RNG.random(images) < p - too_sure
    return scores_of(-np.log(np.where(right, p, 1 - p)), np.where(right, 2 * (1 - p) ** 2, 2 * p**2), p, right)


def found_of(temperature: float | None, *, fitted_here: bool = False) -> Reliability:
    calibration = None if temperature is None else Calibration(temperature=temperature, images=200)
    logits = torch.tensor([[0.9, 0.1], [0.3, 0.7], [0.95, 0.05], [0.62, 0.38]]).log()
    return reliability(table(logits, np.array([0, 0, 0, 1]), calibration), calibration, fitted_here=fitted_here)


def test_by_hand() -> None:
    """Bins of 15: 0.9 is in the 14th, 0.7 in the 11th, 0.95 in the 15th, 0.62 in the 10th."""
    found = found_of(None)

    assert found.after is None
    scores = found.before
    assert scores.counts.nonzero()[0].tolist() == [9, 10, 13, 14]
    assert scores.ece.value == pytest.approx((0.1 + 0.7 + 0.05 + 0.62) / 4)
    assert scores.nll.value == pytest.approx(-np.log([0.9, 0.3, 0.95, 0.38]).mean())
    assert scores.brier.value == pytest.approx((2 * 0.1**2 + 2 * 0.7**2 + 2 * 0.05**2 + 2 * 0.62**2) / 4)


def test_before_is_without_and_after_with_the_temperature() -> None:
    found = found_of(2.0)

    assert found.after is not None
    assert found.before.nll.value == pytest.approx(found_of(None).before.nll.value)
    halved = torch.tensor([[0.9, 0.1], [0.3, 0.7], [0.95, 0.05], [0.62, 0.38]]).sqrt()
    of_target = (halved / halved.sum(dim=1, keepdim=True))[torch.arange(4), torch.tensor([0, 0, 0, 1])]
    assert found.after.nll.value == pytest.approx(-of_target.log().mean().item(), rel=1e-6)


def test_exact_probabilities_are_within_what_chance_allows_and_others_are_not() -> None:
    exact = [drawn(1000) for _ in range(30)]

    assert sum(scores.ece.value < scores.ece_by_chance for scores in exact) >= 26
    assert all(drawn(1000, too_sure=0.15).ece.value > 2 * scores.ece_by_chance for scores in exact[:5])


@pytest.mark.parametrize(("too_sure", "ece"), [(0.1, 0.1), (0.2, 0.2)])
def test_intervals_hold_the_true_values(too_sure: float, ece: float) -> None:
    """Every bin is too sure by the same, which is then the true calibration error."""
    p = np.linspace(0.6, 1, 100_001)
    nll = -((p - too_sure) * np.log(p) + (1 - p + too_sure) * np.log(np.maximum(1 - p, 1e-300)))[:-1].mean()
    brier = ((p - too_sure) * 2 * (1 - p) ** 2 + (1 - p + too_sure) * 2 * p**2).mean()
    found = [drawn(400, too_sure) for _ in range(40)]

    for name, true in (("ece", ece), ("nll", nll), ("brier", brier)):
        inside = sum(getattr(s, name).low <= true <= getattr(s, name).high for s in found)
        assert inside >= 33, (name, inside)
    assert all(s.ece.low <= s.ece.value <= s.ece.high for s in found)


def test_the_same_each_time() -> None:
    p = np.linspace(0.5, 1, 50)
    assert scores_of(p, p, p, p > 0.7).ece == scores_of(p, p, p, p > 0.7).ece


@pytest.mark.parametrize("temperature", [None, 2.0])
def test_lines_and_json(temperature: float | None) -> None:
    found = found_of(temperature, fitted_here=True)
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))

    assert document["temperature"] == temperature
    assert ("after" in document) == (temperature is not None) == document["fitted_here"]
    assert sum(entry["images"] for entry in document["before"]["reliability"]) == 4
    said = " ".join(found.lines())
    assert ("not calibrated" in said) == (temperature is None)
    assert ("among these" in said) == (temperature is not None)


@pytest.mark.parametrize("temperature", [None, 2.0])
def test_diagram(temperature: float | None, tmp_path: Path) -> None:
    draw_reliability(found_of(temperature), tmp_path / "a.png", title="$photos$, test images")

    with Image.open(tmp_path / "a.png") as image:
        assert image.width > (900 if temperature else 500)
