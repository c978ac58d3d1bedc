"""Intervals of rates hold the rate as often as they say."""

from math import comb

import pytest

from convit.intervals import wilson_interval


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_values_that_newcombe_printed(right: int, total: int, low: float, high: float) -> None:
    """Table I of Newcombe (1998), method 3."""
    found = wilson_interval(right, total)

    assert found == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("total", [1, 2, 7, 40])
def test_it_holds_the_measured_rate_and_stays_within_0_and_1(total: int) -> None:
    for right in range(total + 1):
        low, high = wilson_interval(right, total)

        assert 0 <= low <= right / total <= high <= 1
        assert high - low > 0
        assert wilson_interval(total - right, total) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize("rate", [0.5, 0.8, 0.93])
def test_it_holds_the_true_rate_about_95_times_in_100(rate: float) -> None:
    total = 200
    covered = sum(
        comb(total, right) * rate**right * (1 - rate) ** (total - right)
        for right in range(total + 1)
        if wilson_interval(right, total)[0] <= rate <= wilson_interval(right, total)[1]
    )

    assert 0.93 < covered < 0.97


def test_of_no_images_nothing_is_known() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("right", "total"), [(-1, 5), (6, 5), (0, -1)])
def test_what_are_no_counts_is_refused(right: int, total: int) -> None:
    with pytest.raises(ValueError, match="right"):
        wilson_interval(right, total)
