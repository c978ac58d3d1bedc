"""Means and standard errors, by hand."""

import math

import pytest

from convit.experiments.tables import difference, mean_of, over_seeds, shown
from tests.experiments.made import made


def test_standard_error_is_of_the_sample() -> None:
    got = mean_of([90.0, 92.0, 97.0])
    # Deviations -3, -1, 4: squares sum to 26, variance 26 / 2 = 13, error sqrt(13 / 3).
    assert (got.mean, got.count) == (93.0, 3)
    assert got.error == pytest.approx(math.sqrt(13 / 3))
    assert str(got) == "93.0 ± 2.1"


def test_one_value_has_no_error() -> None:
    got = mean_of([90.0])
    assert (got.mean, got.error, got.count, str(got)) == (90.0, None, 1, "90.0")


RESULTS = [
    *(made("convit", 0, 80.0), made("convit", 1, 84.0), made("convit", 2, 90.0)),
    *(made("twin", 1, 80.0), made("twin", 0, 79.0)),
]


def test_over_seeds_takes_those_with_the_labels() -> None:
    assert shown(over_seeds(RESULTS, variant="twin")) == "79.5 ± 0.5"
    assert shown(over_seeds(RESULTS, lambda result: result.val_top1, variant="twin")) == "78.5 ± 0.5"
    assert over_seeds(RESULTS, variant="other") is None
    assert shown(None) == ""


def test_difference_pairs_the_seeds() -> None:
    got = difference(RESULTS, "convit", "twin")
    assert got is not None
    assert (got.mean, got.count) == (2.5, 2)  # 1 of seed 0, 4 of seed 1; seed 2 has no partner
    assert shown(got, "+.1f") == "+2.5 ± 1.5"
    assert shown(difference(RESULTS, "twin", "convit"), "+.1f") == "-2.5 ± 1.5"
    assert difference(RESULTS, "convit", "psa") is None
