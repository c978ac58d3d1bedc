"""Mean and standard error over seeds."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from convit.experiments.cells import Label, Result


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
        return f"{self.mean:.1f}" + ("" if self.error is None else f" ± {self.error:.1f}")


def mean_of(values: Sequence[float]) -> Mean:
    """Mean and standard error of at least one value."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return Mean(statistics.fmean(values), error, len(values))


def over_seeds(
    results: Iterable[Result], value: Callable[[Result], float] = lambda result: result.top1, **labels: Label
) -> Mean | None:
    """The mean over the seeds of the results that have these labels; None if there is none."""
    found = [value(result) for result in results if has(result, **labels)]
    return mean_of(found) if found else None


def difference(results: Iterable[Result], of: str, to: str, **labels: Label) -> Mean | None:
    """Mean over seeds of the top-1 of variant ``of`` less that of variant ``to`` with the same seed; None if none."""
    by_seed: dict[str, dict[int, float]] = {of: {}, to: {}}
    for result in results:
        if has(result, **labels) and result.labels["variant"] in by_seed:
            by_seed[str(result.labels["variant"])][result.seed] = result.top1
    pairs = [by_seed[of][seed] - by_seed[to][seed] for seed in sorted(by_seed[of].keys() & by_seed[to].keys())]
    return mean_of(pairs) if pairs else None


def has(result: Result, **labels: Label) -> bool:
    """Whether a result has all of these labels."""
    return all(result.labels.get(name) == value for name, value in labels.items())


def signed(mean: Mean | None) -> str:
    """A difference, with its sign; nothing for None."""
    return "" if mean is None else f"{mean.mean:+.1f}" + ("" if mean.error is None else f" ± {mean.error:.1f}")


def shown(mean: Mean | None) -> str:
    """A mean as a table has it; nothing for None."""
    return "" if mean is None else str(mean)
