"""What more images would give: the law is found, its intervals hold it, a run is repeated on parts of its images."""

import json
from pathlib import Path

import numpy as np
import pytest

from convit.errors import InputError
from convit.events import Event, RunEnded, Said
from convit.experiments.forecast import forecast
from convit.experiments.learning_curve import Point, fitted
from convit.training.run import train
from tests.training.made_report import class_folders
from tests.training.small import options

SIZES = (100, 200, 400)


def drawn(seed: int, measured: int, slope: float = -0.5) -> list[Point]:
    """Mistakes of a law of 40% at 100 images."""
    rng = np.random.default_rng(seed)
    return [Point(n, int(rng.binomial(measured, 0.4 * (n / 100) ** slope)), measured) for n in SIZES]


def test_a_law_without_noise_is_found() -> None:
    curve = fitted([Point(n, round(1e6 * 0.4 * (n / 100) ** -0.5), 10**6) for n in SIZES])
    for images, expected in ((800, 100 - 40 / 8**0.5), (1600, 90.0)):
        middle, low, high = curve.accuracy(images)
        assert middle == pytest.approx(expected, abs=0.02)
        assert low < middle < high
    assert curve.gain(400, 1600)[0] == pytest.approx(10.0, abs=0.02)


def test_intervals_hold_the_law_about_95_times_in_100() -> None:
    ends = [fitted(drawn(seed, 300)).accuracy(1600)[1:] for seed in range(200)]
    held = sum(low <= 90.0 <= high for low, high in ends) / len(ends)
    assert 0.88 <= held <= 0.99


def test_fewer_measured_images_tell_less() -> None:
    few, many = (fitted(drawn(0, measured)).accuracy(800) for measured in (30, 3000))
    assert few[2] - few[1] > 4 * (many[2] - many[1])


def test_more_images_are_never_taken_to_harm() -> None:
    curve = fitted([Point(100, 10, 100), Point(200, 12, 100), Point(400, 20, 100)])
    assert curve.gain(400, 800) == pytest.approx((0.0, 0.0, 0.0), abs=2.0)
    assert curve.gain(400, 800)[1] >= 0


def test_no_mistakes_at_all_are_not_taken_for_certainty() -> None:
    middle, low, _ = fitted([Point(n, 0, 20) for n in SIZES]).accuracy(800)
    assert low < middle < 100


def test_one_size_is_refused() -> None:
    with pytest.raises(InputError, match="expected two sizes"):
        fitted([Point(100, 3, 10), Point(100, 2, 10)])


def test_a_run_is_repeated_on_parts_of_its_images(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "animals", ("ape", "bee"), images=20)
    run = tmp_path / "run"
    with pytest.raises(InputError, match="expected a run that is complete"):
        forecast(run, print)
    train(options(data, run, epochs=1, opt="adamw"))
    heard: list[Event] = []
    found = forecast(run, heard.append)
    assert [point.images for point in found.points] == [10, 18, 36]
    assert {point.measured for point in found.points} == {4}
    assert list(found.more) == [2, 4]
    assert not [event for event in heard if isinstance(event, RunEnded)]  # of the parts nothing is said at their ends
    assert len([event for event in heard if isinstance(event, Said)]) == 2
    for part in ("0.25", "0.5"):
        folder = run / "forecast" / part
        assert (
            json.loads((folder / "split.json").read_text())["val"]
            == json.loads((run / "split.json").read_text())["val"]
        )
        assert not (folder / "checkpoints").exists()
    again: list[Event] = []
    assert forecast(run, again.append) == found
    assert not [event for event in again if not isinstance(event, Said)]  # nothing was trained again
    assert found.conclusion
    assert json.dumps(found.to_dict())
