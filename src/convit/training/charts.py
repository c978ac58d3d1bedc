"""Line charts as SVG, for a page: its style sheet gives the colours, the browser the fonts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from convit.pages.markup import text

POINTS = 400
"""A line is drawn through at most so many points."""
LEFT, RIGHT, TOP, BOTTOM = 43.0, 12.0, 8.0, 36.0
"""Room for the numbers of the axes, in units of the drawing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A line of a chart; ``kind`` is its class in the style sheet."""

    kind: str
    x: Sequence[float]
    y: Sequence[float]


def chart(
    lines: Sequence[Line],
    *,
    about: str,
    size: tuple[float, float] = (360, 220),
    limits: tuple[float, float] | None = None,
    percent: bool = False,
    ringed: tuple[float, float] | None = None,
) -> str:
    """An SVG of some lines over an axis of epochs.

    Args:
        lines: each with at least one point, all finite.
        about: the chart in words, for those who do not see it.
        size: (width, height); text is of 12 units.
        limits: of the upright axis; None for those of the lines, with 0 between them.
        percent: whether the numbers of the upright axis are.
        ringed: a point to put a ring around.
    """
    width, height = size
    first, last = min(min(line.x) for line in lines), max(max(line.x) for line in lines)
    top = max(max(line.y) for line in lines)
    low, high = limits or (min(0.0, min(min(line.y) for line in lines)), top * 1.04 or 1.0)

    def at(x: float, y: float) -> tuple[float, float]:
        along = (x - first) / (last - first) if last > first else 0.5
        up = (y - low) / (high - low)
        return round(LEFT + along * (width - LEFT - RIGHT), 1), round(height - BOTTOM - up * (height - TOP - BOTTOM), 1)

    drawn = []
    for value in ticks(low, high, 5):
        y = at(first, value)[1]
        drawn.append(f'<path class="grid" d="M{LEFT} {y}H{width - RIGHT}"/>')
        drawn.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{value:.6g}{"%" if percent else ""}</text>')
    for value in ticks(first, last, 6 if width > 300 else 3, whole=True):
        x = at(value, low)[0]
        drawn.append(f'<text x="{x}" y="{height - BOTTOM + 16}" text-anchor="middle">{value:g}</text>')
    middle = LEFT + (width - LEFT - RIGHT) / 2
    drawn.append(f'<text x="{middle}" y="{height - 4}" text-anchor="middle">epoch</text>')
    for line in lines:
        points = [at(x, y) for x, y in zip(line.x, line.y, strict=True)]
        points = [*points[:: -(-len(points) // POINTS)], points[-1]]
        if len(line.x) == 1:
            drawn.append(f'<circle class="dot {line.kind}" cx="{points[0][0]}" cy="{points[0][1]}" r="3.5"/>')
        else:
            drawn.append(f'<path class="curve {line.kind}" d="M{"L".join(f"{x} {y}" for x, y in points)}"/>')
    if ringed is not None:
        x, y = at(*ringed)
        drawn.append(f'<circle class="best" cx="{x}" cy="{y}" r="5"/>')
    label = text(about)
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{label}">{"".join(drawn)}</svg>'


def ticks(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    """At most so many round numbers from ``low`` to ``high``, evenly apart by 1, 2 or 5 times a power of ten.

    >>> ticks(0, 2.3, 5), ticks(1, 79, 6, whole=True), ticks(3, 3, 5)
    ([0.0, 0.5, 1.0, 1.5, 2.0], [20.0, 40.0, 60.0], [3.0])
    """
    if high <= low:
        return [float(low)]
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    steps = (power * by for by in (1, 2, 5, 10, 20, 50, 100))
    for step in steps:
        if whole and (step < 1 or step != round(step)):
            continue
        start, end = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if end - start < most:
            return [float(f"{step * number:.12g}") for number in range(start, end + 1)]
    raise AssertionError(f"no step for {low} to {high}")
