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
    low, high = wilson_interval(right, total)
    return f"{100 * right / total:.2f}% (95% interval {100 * low:.2f} to {100 * high:.2f})" if total else "-"
