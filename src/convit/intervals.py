"""Intervals of measured rates: how far a rate of n images may be from that of all such images. Imports nothing."""

from math import sqrt

Z95 = 1.959963984540054
"""Standard deviations of a normal variable that hold 95% of it."""


def wilson_interval(right: int, total: int) -> tuple[float, float]:
    """Wilson's 95% interval of a rate that was measured as ``right / total``.

    With ``p = right / total``, ``n = total`` and ``z = 1.96`` it is ::

        (p + z^2 / 2n  +-  z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)

    (Wilson, 1927, equation 4): all rates that would not be rejected at 5% if ``right`` of ``total`` are found. It stays
    within 0 and 1, and has a width where all or none are right.

    Args:
        right: how many of ``total``, 0 to ``total``.
        total: how many independent images were looked at; of 0 the interval is 0 to 1.

    Returns:
        The lower and the upper end, as parts of 1.

    Raises:
        ValueError: numbers that are no counts of this kind.

    >>> [round(end, 4) for end in wilson_interval(81, 263)]  # of Newcombe, 1998, table I
    [0.2553, 0.3662]
    >>> [round(end, 4) for end in wilson_interval(20, 20)]
    [0.8389, 1.0]
    """
    if not 0 <= right <= total:
        raise ValueError(f"right: got {right} of {total}, expected 0 to {total}")
    if not total:
        return 0.0, 1.0
    rate, weight = right / total, Z95**2 / total
    centre = rate + weight / 2
    spread = sqrt(weight * (rate * (1 - rate) + weight / 4))
    low, high = (centre - spread) / (1 + weight), (centre + spread) / (1 + weight)
    # At the ends exactly 0 and 1, which rounding would miss.
    return (0.0 if right == 0 else low), (1.0 if right == total else high)


def rate_with_interval(right: int, total: int) -> str:
    """A rate in percent with its interval (:func:`wilson_interval`), as it is printed; of no images a dash.

    >>> rate_with_interval(81, 263)
    '30.80% (95% interval 25.53 to 36.62)'
    """
    return percent_with_interval(100 * right / total, total) if total else "-"


def percent_with_interval(percent: float, total: int) -> str:
    """The same of an accuracy that is known in percent, of so many images.

    >>> percent_with_interval(90.909, 11)
    '90.91% (95% interval 62.26 to 98.38)'
    """
    low, high = wilson_interval(round(percent / 100 * total), total)
    return f"{percent:.2f}% (95% interval {100 * low:.2f} to {100 * high:.2f})"


def mcnemar(first: int, second: int) -> float:
    """The exact p-value of McNemar's test (1947): whether two models that saw the same images are as often right.

    Only images that one of them alone has right tell the two apart. If both are as good, each such image is the first
    model's with probability 1/2, so with ``n = first + second`` and ``k`` the smaller of the two ::

        p = min(1, 2 sum_{i <= k} C(n, i) / 2^n)

    Args:
        first: images that the first model alone has right.
        second: images that the second alone has right.

    Raises:
        ValueError: numbers below 0.

    >>> mcnemar(8, 1)  # 2 (1 + 9) / 512
    0.0390625
    >>> mcnemar(0, 0), mcnemar(5, 5)
    (1.0, 1.0)
    """
    if min(first, second) < 0:
        raise ValueError(f"mcnemar: got {first} and {second}, expected counts")
    n, term, total = first + second, 1, 0
    for i in range(min(first, second) + 1):
        total += term
        term = term * (n - i) // (i + 1)
    return min(1.0, 2 * total / (1 << n))


def paired_difference(both: int, first: int, second: int, neither: int) -> tuple[float, float]:
    """The 95% interval of the difference of two accuracies on the same images, first less second, as a part of 1.

    Newcombe's square-and-add of the two Wilson intervals with the correlation of the models (*Improved confidence
    intervals for the difference between binomial proportions based on paired data*, 1998, method 10).

    Args:
        both: images that both models have right.
        first: that the first alone has right.
        second: that the second alone has right.
        neither: that both have wrong.

    Raises:
        ValueError: numbers below 0, or no images.

    >>> [round(end, 4) for end in paired_difference(36, 12, 2, 0)]  # of the paper, table II
    [0.0569, 0.3404]
    """
    total = both + first + second + neither
    if min(both, first, second, neither) < 0 or not total:
        raise ValueError(f"paired_difference: got {both}, {first}, {second}, {neither}, expected counts, not all 0")
    rates = ((both + first) / total, (both + second) / total)
    (low1, high1), (low2, high2) = wilson_interval(both + first, total), wilson_interval(both + second, total)
    product = float(both * neither - first * second)
    if product > 0:
        product = max(product - total / 2, 0.0)
    spread = (both + first) * (second + neither) * (both + second) * (first + neither)
    phi = product / sqrt(spread) if spread else 0.0
    below = _joined(rates[0] - low1, high2 - rates[1], phi)
    above = _joined(high1 - rates[0], rates[1] - low2, phi)
    return (first - second) / total - below, (first - second) / total + above


def _joined(one: float, other: float, phi: float) -> float:
    """The length of the difference of two lengths whose correlation is phi."""
    return sqrt(max(0.0, one**2 - 2 * phi * one * other + other**2))


def short_interval(percent: float, total: int) -> str:
    """The ends alone, to a tenth of a percent, for tables and lines of many numbers.

    >>> short_interval(90.909, 11)
    '62.3 to 98.4'
    """
    low, high = wilson_interval(round(percent / 100 * total), total)
    return f"{100 * low:.1f} to {100 * high:.1f}"
