"""How long a run will take: foretold once, from its first steps, and without a change of the run."""

from pathlib import Path

import pytest

from convit.events import Event, Said
from convit.training.plan import Plan
from convit.training.run import train
from convit.training.speed import END, ENOUGH, SAVED, Foretelling, Speed
from convit.training.state import Progress
from tests.training.made_report import class_folders, made_plan
from tests.training.small import options

IMAGE = 0.1
"""Seconds of an image in a forward pass."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 images to learn from, in 15 steps of 4; 6 to validate on."""
    return class_folders(tmp_path_factory.mktemp("data") / "animals", ("ape", "bee", "cow"), images=22)


@pytest.fixture(scope="module")
def plan(data: Path) -> Plan:
    return made_plan(data, epochs=100)


def stepped(foretelling: Foretelling, seconds: float, steps: int, *, first: float = 0.0, epoch: int = 0) -> list[str]:
    """What is foretold while steps of so many seconds are made, the first longer."""
    progress, said = Progress(epoch=epoch), []
    for step in range(1, steps + 1):
        progress.step, progress.seconds = step, first + step * seconds
        if (words := foretelling.after_step(progress)) is not None:
            said.append(words)
    return said


def test_foretold_once_without_the_first_step(plan: Plan) -> None:
    foretelling = Foretelling(plan, lambda: IMAGE)
    (said,) = stepped(foretelling, 1.0, 15, first=50.0)
    assert f"from {ENOUGH:.0f} steps of 1000 ms" in said
    # 100 epochs of 15 steps, 6 images evaluated and recorded, and saving.
    left = 100 * (15 + 6 * 1.2 * IMAGE + 6 * 2 * IMAGE + SAVED) - 5 + (6 + 60) * 1.2 * IMAGE + END
    assert said.startswith(f"about {left / 60:.0f} minutes from here")
    assert stepped(foretelling, 1.0, 15) == []


@pytest.mark.parametrize(("seconds", "says"), [(30.0, "from 4 steps of 30000 ms"), (0.01, "from 14 steps of 10 ms")])
def test_long_steps_are_not_judged_by_one_and_a_short_epoch_is_enough(seconds: float, says: str, plan: Plan) -> None:
    (said,) = stepped(Foretelling(plan, lambda: IMAGE), seconds, 15)
    assert says in said


def test_one_step_in_the_first_epoch_is_not(plan: Plan) -> None:
    foretelling = Foretelling(plan, lambda: IMAGE)
    assert stepped(foretelling, 0.01, 1) == []
    (said,) = stepped(foretelling, 0.01, 15, epoch=1)
    assert "from 15 steps of 10 ms" in said


def test_of_a_step_with_other_images_the_pixels_alone_take_another_time(data: Path) -> None:
    """The first half with half the sides: three quarters of three forward passes of 4 images less, 0.9 s."""
    plan = made_plan(data, epochs=100, image_size=(16,), first_size=(8,), first_epochs=50)
    (small,) = stepped(Foretelling(plan, lambda: IMAGE), 1.0, 15)
    (whole,) = stepped(Foretelling(plan, lambda: IMAGE), 1.9, 15, epoch=50)
    around = 6 * 3.2 * IMAGE + SAVED
    assert float(whole.split()[1]) == pytest.approx(50 * (15 * 1.9 + around) / 60, abs=0.8)
    assert float(small.split()[1]) == pytest.approx((50 * 15 * (1.0 + 1.9) + 100 * around) / 60, abs=0.8)


def test_what_is_left_of_a_run(plan: Plan) -> None:
    speed = Speed(first_step=1.0, step=1.0, evaluated=0.0, epoch_end=0.0)
    assert speed.of(plan) == 1500 + END
    assert speed.of(plan, epoch=99, step=10) == 5 + END


def test_a_run_says_it_at_its_beginning(data: Path, tmp_path: Path) -> None:
    heard: list[Event] = []
    train(options(data, tmp_path / "run", epochs=1, opt="adamw"), heard.append)
    said = [event.text for event in heard if isinstance(event, Said)]
    (words,) = [text for text in said if "from here to the end" in text]
    assert said.index(words) > said.index(next(text for text in said if text.startswith("memory: ")))
