"""What came of a run: values by hand, and what is advised where."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convit.training.outcome import Outcome, confused_pairs, late, learned, outcome
from convit.training.plan import Plan
from tests.training.made_report import class_folders, evaluation, history, made_plan

NAMES = ("ape", "bee", "cow")
RISING = [1.0 - 0.05 * i for i in range(20)]
"""Losses of a run that would go on getting better."""
FLAT = [1.0] * 10 + [0.5, 0.51, 0.49, 0.5, 0.51, 0.5, 0.49, 0.51, 0.5, 0.5]


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return made_plan(class_folders(tmp_path_factory.mktemp("data") / "animals", NAMES), epochs=20)


def came(
    plan: Plan,
    losses: list[float] = FLAT,
    confusion: list[list[int]] | None = None,
    seen: list[list[int]] | None = None,
    **more: Any,
) -> Outcome:
    found = evaluation(NAMES, confusion or [[40, 8, 2], [3, 37, 0], [0, 0, 10]])
    on_seen = found if seen is None else evaluation(NAMES, seen)
    return replace(outcome(plan, history(losses), found, "test", on_seen), **more)


def said(found: Outcome) -> dict[str, str]:
    """What is found and advised by topic."""
    return {finding.topic: f"{finding.text} {finding.advice}".strip() for finding in found.findings()}


def test_values_by_hand(plan: Plan) -> None:
    found = came(plan)
    assert (found.images, found.top1) == (100, 87.0)
    assert found.interval == pytest.approx((79.02, 92.24), abs=0.01)  # Wilson, of 87 in 100
    assert found.chance == pytest.approx(100 / 3)
    assert (found.largest, found.largest_share) == ("ape", 50.0)
    assert found.learned is True
    assert (found.smallest_images, found.learned_from) == (3, 9)
    assert (found.best_epoch, found.epochs, found.asked_epochs) == (13, 20, 20)  # of equals the lowest loss, the first
    assert (found.lowest_loss_epoch, found.lowest_loss, found.last_loss) == (13, 0.49, 0.5)


def test_pairs_are_in_the_order_of_their_mistakes() -> None:
    pairs = confused_pairs(evaluation(NAMES, [[5, 1, 2], [0, 4, 3], [2, 0, 9]]))
    assert [(p.first, p.second, p.first_as_second, p.second_as_first) for p in pairs] == [
        ("ape", "cow", 2, 2),
        ("bee", "cow", 3, 0),
        ("ape", "bee", 1, 0),
    ]
    assert (pairs[0].first_images, pairs[0].second_images) == (8, 11)
    assert confused_pairs(evaluation(NAMES, [[5, 0, 0], [0, 4, 0], [0, 0, 1]])) == ()


@pytest.mark.parametrize(
    ("losses", "clear"),
    [
        (RISING, True),
        (FLAT, False),
        ([1.0] * 15 + [0.5, 0.505, 0.495, 0.5, 0.498], False),  # by 1%: less than 2%
        ([1.0] * 16 + [0.9, 0.5, 0.9, 0.5], False),  # up and down by more than it falls
        ([1.0] * 16 + [0.5, 0.6, 0.7, 0.8], False),
        ([0.0] * 20, False),
    ],
)
def test_whether_it_still_improved(losses: list[float], clear: bool) -> None:
    found = late(losses)
    assert found is not None
    assert (found.epochs, found.clear) == (4, clear)


def test_of_a_few_epochs_that_cannot_be_told() -> None:
    assert late([1.0] * 9) is None
    found = late([1.0] * 10)
    assert found is not None
    assert found.epochs == 3


def test_more_epochs_are_advised_where_it_still_improved(plan: Plan) -> None:
    assert "Try --epochs 40." in said(came(plan, RISING))["epochs"]
    assert "Try --minutes 6." in said(came(plan, RISING, minutes=3))["epochs"]
    assert "Try --epochs 6." in said(came(plan, RISING[:3], asked_epochs=3))["epochs"]
    assert "Try" not in said(came(plan, FLAT))["epochs"]
    assert "Try" not in said(came(plan, RISING, asked_epochs=30))["epochs"]  # patience ended it


def test_overfitting_is_a_clear_difference(plan: Plan) -> None:
    found = came(plan, seen=[[66, 0, 0], [0, 66, 0], [0, 0, 68]])
    assert found.overfits
    assert said(found)["overfitting"].startswith("Yes: 100.0% of 200 images")
    assert "--pretrained" in said(found)["overfitting"]
    assert "--pretrained" not in said(replace(found, pretrained=True))["overfitting"]
    few = came(plan, confusion=[[3, 0, 0], [0, 2, 1], [0, 0, 3]], seen=[[64, 2, 0], [2, 64, 0], [0, 0, 68]])
    assert not few.overfits  # 8 of 9 may be as good as 98%


def test_what_has_not_learned_its_own_images_may_learn_on(plan: Plan) -> None:
    found = came(plan, seen=[[60, 3, 3], [3, 60, 3], [20, 0, 48]])
    assert "larger --model" in said(found)["overfitting"]


@pytest.mark.parametrize(("top1", "clearly"), [(50.0, False), (70.0, False), (95.0, True)])
def test_whether_anything_was_learned(top1: float, clearly: bool) -> None:
    """Of 10 + 10 images half are right by always saying the same; two standard errors are 22 points."""
    right = round(top1 / 10)
    assert learned(np.array([[right, 10 - right], [10 - right, right]])) is clearly


def test_of_too_few_images_nothing_can_be_told() -> None:
    assert learned(np.array([[2, 0], [0, 2]])) is None


def test_where_nothing_was_learned_it_is_said(plan: Plan) -> None:
    words = said(came(plan, confusion=[[50, 0, 0], [40, 0, 0], [10, 0, 0]]))
    assert "nothing to rely on was learned" in words["guessing"]
    assert "wrong labels" not in words["confused"]  # everything is wrong


def test_every_outcome_has_words(plan: Plan, tmp_path: Path) -> None:
    for confusion in (
        [[1, 0, 0], [0, 0, 0], [0, 0, 0]],
        [[0, 9, 0], [0, 0, 9], [9, 0, 0]],
        [[9, 1, 0], [0, 9, 0], [0, 1, 9]],
    ):
        for losses in ([1.0], FLAT, RISING):
            words = said(came(plan, losses, confusion))
            assert list(words) == ["accuracy", "guessing", "confused", "epochs", "overfitting", "images"]
            assert all(words.values())
