"""--minutes: as many epochs as end nearest to them, by what steps and evaluations take here."""

import time
from pathlib import Path
from typing import Any

import pytest

from convit.data.select import Selection
from convit.errors import InputError
from convit.events import ignore
from convit.training import duration
from convit.training.duration import fitted
from convit.training.engine import measure_nothing
from convit.training.options import asked_from
from convit.training.plan import Plan
from convit.training.planning import planned
from convit.training.run import train
from convit.training.speed import END, Speed
from tests.training.small import exact, metrics, options, resume

SPEED = Speed(first_step=1.0, step=2.0, evaluated=0.5, epoch_end=3.0)
COUNTS = {"ape": 10, "bee": 10}  # 18 images to learn from, in four steps of 4; 2 to validate on


def fit(data: Path, seconds: float, monkeypatch: pytest.MonkeyPatch, **more: Any) -> Plan:
    """The plan for a machine of known speed."""
    monkeypatch.setattr(duration, "measured", lambda *_: SPEED)
    asked = options(data, Path("nowhere"), epochs=None, minutes=seconds / 60, **more)
    selection, plan = planned(asked, ignore)
    assert isinstance(selection, Selection)
    return fitted(asked, selection, plan, measure_nothing, time.perf_counter())


@pytest.mark.parametrize(
    ("seconds", "first", "epochs"),
    [
        # 4 steps of 2 s, 2 images and 3 s of an epoch are 12 s; the last evaluations, of 2 + 18, and the end 13 s.
        (73, 0, 5),
        (78, 0, 5),
        (80, 0, 6),
        (69, 3, 6),  # three epochs take 8 s: 3 * 8 + 3 * 12 = 60
    ],
)
def test_epochs_end_nearest_to_the_minutes(
    seconds: float, first: int, epochs: int, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = fit(data, seconds + 0.5, monkeypatch, first_epochs=first)
    assert SPEED.of(plan) == pytest.approx(epochs * 12 - first * 4 + 10 + END)
    assert plan.epochs == epochs
    assert (plan.options.minutes, plan.given["minutes"]) == (None, pytest.approx((seconds + 0.5) / 60))
    assert plan.options.warmup_epochs == pytest.approx(epochs / 10)
    assert plan.reasons["epochs"].startswith(f"{epochs} (")


def test_too_few_minutes_for_one_epoch(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"^minutes: got 0.1, expected at least 0.42: .* 18 images"):
        fit(data, 6, monkeypatch)


def test_a_run_for_a_time_is_repeated_by_its_epochs(data: Path, tmp_path: Path) -> None:
    began = time.perf_counter()
    train(options(data, tmp_path / "a", epochs=None, minutes=0.25))
    assert time.perf_counter() - began < 60
    assert "minutes: null" in (tmp_path / "a" / "config.yaml").read_text()
    train(options(data, tmp_path / "b", epochs=len(metrics(tmp_path / "a"))))
    assert exact(tmp_path / "a")[0] == exact(tmp_path / "b")[0]
    train(resume(tmp_path / "a"))


def test_minutes_and_epochs_exclude_each_other(data: Path) -> None:
    with pytest.raises(InputError, match="epochs and minutes: got both"):
        options(data, minutes=1.0)


def test_minutes_in_place_of_the_epochs_of_a_file(data: Path, tmp_path: Path) -> None:
    """The file of a run says how many epochs it took."""
    file = tmp_path / "config.yaml"
    file.write_text(f"data: {data}\nepochs: 3\n")
    asked = asked_from(file, {"minutes": 2.0})
    assert (asked.epochs, asked.minutes) == (None, 2.0)
    file.write_text(f"data: {data}\nminutes: 3\n")
    asked = asked_from(file, {"epochs": 2})
    assert (asked.epochs, asked.minutes) == (2, None)
