"""Tables in Markdown, of means over seeds and their standard errors."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter

from convit.experiments.results import Label, Result


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean of ``count`` values and its standard error, ``sd / sqrt(count)`` with ``count - 1`` in sd.

    Of one value there is no error.

    >>> str(mean_of([1.0, 2.0, 3.0])), str(mean_of([2.0]))
    ('2.0 ± 0.6', '2.0')
    """

    mean: float
    error: float | None
    count: int

    def __str__(self) -> str:
        return shown(self)


def mean_of(values: Sequence[float]) -> Mean:
    """Mean and standard error of at least one value."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return Mean(statistics.fmean(values), error, len(values))


def shown(mean: Mean | None, form: str = ".1f") -> str:
    """A mean as a table has it; nothing for None.

    >>> shown(mean_of([-0.5, 1.0]), "+.2f")
    '+0.25 ± 0.75'
    """
    if mean is None:
        return ""
    return f"{mean.mean:{form}}" + ("" if mean.error is None else f" ± {mean.error:{form.removeprefix('+')}}")


def chosen(results: Iterable[Result], **labels: Label) -> list[Result]:
    """The results that have all of these labels."""
    return [result for result in results if all(result.labels.get(key) == value for key, value in labels.items())]


def over_seeds(
    results: Iterable[Result], value: Callable[[Result], float | None] = attrgetter("top1"), **labels: Label
) -> Mean | None:
    """The mean over the seeds of the results that have these labels and this value; None if there is none."""
    found = [one for result in chosen(results, **labels) if (one := value(result)) is not None]
    return mean_of(found) if found else None


def difference(
    results: Iterable[Result], of: str, to: str, compare: Callable[[float, float], float] = lambda a, b: a - b
) -> Mean | None:
    """Mean over seeds of the top-1 of variant ``of`` less that of variant ``to`` with the same seed; None if none."""
    own, other = ({r.seed: r.top1 for r in results if r.labels["variant"] == key} for key in (of, to))
    pairs = [compare(own[seed], other[seed]) for seed in sorted(own.keys() & other.keys())]
    return mean_of(pairs) if pairs else None


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown; the first column to the left, the others to the right.

    >>> print(markdown(["kept", "top-1"], [["10%", 93.5]]))
    | kept | top-1 |
    |:--|--:|
    | 10% | 93.5 |
    """
    rule = "|:--|" + "--:|" * (len(header) - 1)
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (header, *rows)]
    return "\n".join([lines[0], rule, *lines[1:]])


def percent(fraction: float) -> str:
    """``10%`` for 0.1."""
    return f"{100 * fraction:g}%"
