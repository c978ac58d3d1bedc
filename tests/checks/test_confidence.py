"""Confident learning, on predictions whose wrong labels are known."""

import numpy as np
import pytest

from convit.checks.confidence import confident_joint, doubts, joint


def predictions(true: np.ndarray, classes: int, sure: float, rng: np.random.Generator) -> np.ndarray:
    """Probabilities that mostly favour the true class."""
    logits = rng.normal(size=(len(true), classes))
    logits[np.arange(len(true)), true] += sure
    weights = np.exp(logits)
    return weights / weights.sum(axis=1, keepdims=True)


def test_wrong_labels_are_found() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 5, 2000)
    given = true.copy()
    wrong = rng.permutation(2000)[:100]
    given[wrong] = (true[wrong] + rng.integers(1, 5, 100)) % 5
    found = doubts(predictions(true, 5, 6.0, rng), given)
    hits = {doubt.image for doubt in found} & set(wrong.tolist())
    assert len(hits) >= 90
    assert len(hits) >= 0.9 * len(found)
    assert all(doubt.suggested == true[doubt.image] for doubt in found if doubt.image in hits)
    assert [doubt.margin for doubt in found] == sorted((doubt.margin for doubt in found), reverse=True)


def test_predictions_that_say_nothing_raise_no_doubt() -> None:
    assert doubts(np.full((40, 4), 0.25), np.arange(40) % 4) == []


def test_a_class_is_doubted_by_its_own_threshold() -> None:
    """A model that is never sure of class 1: 0.4 for it is above what is usual, so it counts."""
    probabilities = np.array([[0.95, 0.05], [0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.65, 0.35], [0.95, 0.05]])
    targets = np.array([0, 0, 1, 1, 1, 0])
    assert confident_joint(probabilities, targets).tolist() == [[2, 0], [0, 2]]


def test_a_class_without_images_is_never_suggested() -> None:
    rng = np.random.default_rng(1)
    targets = rng.integers(0, 2, 60)
    found = doubts(predictions(np.full(60, 2), 3, 5.0, rng), targets)
    assert all(doubt.suggested != 2 for doubt in found)


def test_no_images() -> None:
    assert doubts(np.empty((0, 3)), np.empty(0, np.int64)) == []


def test_joint_sums_to_one_with_the_given_labels_as_its_margin() -> None:
    counts = np.array([[5, 1, 0], [0, 0, 0], [2, 0, 6]])
    found = joint(counts, np.array([10, 4, 6]))
    assert found.sum() == pytest.approx(1)
    assert found.sum(axis=1) == pytest.approx(np.array([10, 4, 6]) / 20)
