"""A dry run: what it says is what a run then does, and nothing is left of it."""

from pathlib import Path
from typing import Any

import pytest

from convit.errors import InputError
from convit.events import Event, Said
from convit.training.dry_run import begin_trial, dry_run, learning_rates, sparkline
from convit.training.run import train
from convit.training.speed import END, Speed
from tests.training.small import metrics, options, photos, resume

COUNTS = {"dark": 12, "light": 6}


def told(data: Path, out: Path, **more: Any) -> str:
    heard: list[Event] = []
    dry_run(options(data, out, **more), heard.append)
    return "\n".join(event.text for event in heard if isinstance(event, Said))


def test_says_what_a_run_says_and_more(data: Path, tmp_path: Path) -> None:
    said = told(data, tmp_path / "run", batch_size=None, epochs=None)
    for words in (
        "photos: 2 classes, 16 to learn from, 2 to validate",
        "--batch-size: 8 (16 training images)",
        "2 steps of 8 images in an epoch, 400 in 200 epochs: 3200 images shown",
        " G multiply-adds for an image",
        "of weights, gradients and moments, about ",
        "nothing was trained or written",
    ):
        assert words in said
    assert list(tmp_path.iterdir()) == []


def test_multiply_adds_by_hand(data: Path, tmp_path: Path) -> None:
    """Four patches of width 144: the embedding, then what each block multiplies; counted by PyTorch's own counter."""
    said = told(data, tmp_path / "run")
    (line,) = [line for line in said.splitlines() if "multiply-adds" in line]
    counted = 1e9 * float(line.split(": ")[1].split()[0])
    tokens, width, blocks = 4, 144, 4
    dense = tokens * 3 * 4 * 4 * width + blocks * tokens * (2 + 1 + 1 + 8) * width**2  # q and k, v, projection, MLP
    assert counted == pytest.approx(dense, rel=0.15)  # the class token, the head and attention itself are small


def test_learning_rates_are_those_of_the_run(data: Path, tmp_path: Path) -> None:
    given = {"epochs": 3, "lr": 1e-2, "warmup_epochs": 1.0}
    _, trainer = begin_trial(options(data, tmp_path / "run", **given))
    rates = learning_rates(trainer)
    train(options(data, tmp_path / "run", **given))
    assert [step for step, _ in rates] == [i / 4 for i in range(12)]
    assert rates[0][1] == pytest.approx(1e-4)
    assert rates[3][1] == pytest.approx(1e-4 + 3 / 4 * (1e-2 - 1e-4))
    assert [rates[last][1] for last in (3, 7, 11)] == [record["lr"] for record in metrics(tmp_path / "run")]


def test_long_schedules_are_shown_in_sixty_places(data: Path, tmp_path: Path) -> None:
    _, trainer = begin_trial(options(data, tmp_path / "run", epochs=1000))
    rates = learning_rates(trainer)
    assert len(rates) == 60
    assert rates[-1][0] == 999.75
    assert sparkline([rate for _, rate in rates])[0] == "▁"
    assert sparkline([0.0, 0.0]) == "▁▁"


def test_refuses_what_a_run_refuses(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="batch-size: got 64, expected at most the 16"):
        told(data, tmp_path / "run", batch_size=64)
    with pytest.raises(InputError, match="resume: got it for a trial"):
        dry_run(resume(tmp_path / "run"), print)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="WORLD_SIZE: got 2 processes for a trial, expected one"):
        told(data, tmp_path / "new")


def test_time_is_that_of_the_run(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2 epochs of 4 steps and 2 images to validate, then 2 to validate and 16 seen again."""
    speed = Speed(first_step=10.0, step=10.0, evaluated=1.0, epoch_end=7.0)
    monkeypatch.setattr("convit.training.dry_run.measured", lambda *_: speed)
    seconds = 2 * (4 * 10 + 2 * 1 + 7) + 2 + 16 + END
    assert f"time: about {seconds / 60:.0f} minutes, by 10000 ms a step" in told(data, tmp_path / "run")


OPEN = {"model": None, "image_size": None, "patch_size": None}


@pytest.mark.parametrize(
    ("side", "given", "advised"),
    [
        (64, OPEN, True),
        (63, OPEN, False),
        (64, {}, False),
        (64, OPEN | {"weights": "run"}, False),
        (64, OPEN | {"teacher_weights": "run"}, False),
    ],
)
def test_advises_published_weights_for_few_photos(
    side: int, given: dict[str, str | None], advised: bool, tmp_path: Path
) -> None:
    """Not for small pictures, nor where the model is named, nor where the run learns from more than its images."""
    few = photos(tmp_path / "few", {"dark": 6, "light": 6}, (side, side))
    if "run" in given.values():
        train(options(few, tmp_path / "run", epochs=1))
    said = told(few, tmp_path / "new", **{name: value and tmp_path / value for name, value in given.items()})
    assert ("--pretrained" in said) is advised
