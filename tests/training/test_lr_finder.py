"""The range test on curves drawn by hand and on a run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convit.training.learner import Learner
from convit.training.lr_finder import RateTest, find_lr, smoothed
from tests.training.small import options

RATES = np.geomspace(1e-7, 1.0, 100)
COUNTS = {"dark": 32, "light": 32}


def curve(steepest: float, noise: float = 0.0) -> np.ndarray[Any, Any]:
    """A loss that falls from 2 to 1 around a rate, by decades, and rises from 0.1 on."""
    decades = np.log10(RATES / steepest)
    rise = np.maximum(0, np.log10(RATES / 0.1)) * 20
    return 1 + 1 / (1 + np.exp(4 * decades)) + rise + noise * np.random.default_rng(0).normal(size=100)


@pytest.mark.parametrize("steepest", [1e-5, 1e-4, 1e-3])
@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_where_it_falls_most_steeply(steepest: float, noise: float) -> None:
    test = RateTest(rates=RATES, losses=curve(steepest, noise))
    assert test.suggestion is not None
    assert abs(np.log10(test.suggestion / steepest)) < (0.5 if noise else 0.1)  # decades
    assert test.suggestion < test.lowest < 0.2


@pytest.mark.parametrize("losses", [np.ones(100), np.linspace(1, 9, 100), np.ones(1)])
def test_a_loss_that_never_falls_suggests_nothing(losses: np.ndarray[Any, Any]) -> None:
    assert RateTest(rates=RATES[: len(losses)], losses=losses).suggestion is None


def test_smoothing_has_no_lag() -> None:
    peak = np.zeros(41)
    peak[20] = 1
    smooth = smoothed(peak)
    assert smooth.argmax() == 20
    assert np.allclose(smooth, smooth[::-1])
    assert smooth[20] == pytest.approx(1 / (3 * np.sqrt(2 * np.pi)), rel=1e-3)


def test_range_test_of_a_run(data: Path, tmp_path: Path) -> None:
    """The rates are a geometric row; it ends where it diverges; the seed decides it; nothing is written."""
    given = {"batch_size": 8, "clip_grad": 0.0, "layer_decay": 0.5, "mix_prob": 0.0}
    given["opt"] = "adamw"  # a step of Muon takes several times as long; the command's own test has it
    first, again = (find_lr(options(data, tmp_path / "run", **given)) for _ in range(2))
    assert np.array_equal(first.losses, again.losses)
    assert np.array_equal(first.rates, again.rates)
    assert 20 < len(first.rates) <= 100
    assert np.allclose(first.rates, RATES[: len(first.rates)])
    assert first.suggestion is not None
    assert 1e-6 < first.suggestion < 0.3
    other = find_lr(options(data, tmp_path / "run", **given, seed=1))
    assert not np.array_equal(first.losses[:5], other.losses[:5])
    assert list(tmp_path.iterdir()) == []


def test_rates_reach_the_optimiser(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def update(self: Learner, number: int) -> None:
        seen.append([group["lr"] for group in self.optimizer.param_groups])

    monkeypatch.setattr(Learner, "_update", update)
    test = find_lr(options(data, tmp_path / "run", layer_decay=0.5))
    assert [max(rates) for rates in seen] == pytest.approx(test.rates.tolist())
    assert min(seen[50]) < 0.5 * max(seen[50])  # layers keep their ratio


def test_loss_that_is_no_number_ends_it(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Learner._loss
    monkeypatch.setattr(
        Learner, "_loss", lambda self, *a: real(self, *a) * (np.nan if self.scheduler.rate > 1e-4 else 1)
    )
    test = find_lr(options(data, tmp_path / "run"))
    assert test.rates[-1] == pytest.approx(1e-4, rel=0.2)
    assert np.isfinite(test.losses).all()
