"""Intervals of rates hold the rate as often as they say."""

from math import comb, erfc

import pytest

from convit.intervals import mcnemar, paired_difference, wilson_interval


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


@pytest.mark.parametrize(("first", "second"), [(8, 1), (1, 8), (0, 6), (17, 30), (12, 12)])
def test_mcnemar_is_the_two_sided_binomial_test(first: int, second: int) -> None:
    n, least = first + second, min(first, second)
    tail = sum(comb(n, i) for i in range(least + 1)) / 2**n

    assert mcnemar(first, second) == pytest.approx(min(1, 2 * tail))


def test_mcnemar_of_thousands_of_images() -> None:
    """By the normal approximation with continuity: z = (|9000 - 8700| - 1) / sqrt(17700)."""
    z = 299 / 17700**0.5

    assert mcnemar(9000, 8700) == pytest.approx(erfc(z / 2**0.5), rel=1e-3)
    assert mcnemar(5000, 0) == 0.0


@pytest.mark.parametrize(
    ("counts", "low", "high"), [((36, 12, 2, 0), 0.0569, 0.3404), ((20, 12, 2, 16), 0.0562, 0.3292)]
)
def test_the_paired_intervals_that_newcombe_printed(counts: tuple[int, ...], low: float, high: float) -> None:
    """Table II of Newcombe (1998, paired data), method 10."""
    assert paired_difference(*counts) == pytest.approx((low, high), abs=5e-5)


def test_paired_interval_turns_with_the_models() -> None:
    low, high = paired_difference(50, 9, 4, 20)

    assert paired_difference(50, 4, 9, 20) == pytest.approx((-high, -low))
    assert low < 5 / 83 < high


@pytest.mark.parametrize("counts", [(0, 0, 0, 0), (-1, 3, 2, 2)])
def test_paired_counts_that_are_none(counts: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected counts"):
        paired_difference(*counts)
    with pytest.raises(ValueError, match="expected counts"):
        mcnemar(-1, 2)
