"""What was measured: times, their spread, ratios; and the JSON document of it."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from convit.benchmark.cases import Case
from convit.benchmark.machine import Facts


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """A median, and the quartiles beside it: half of all values are from ``low`` to ``high``."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f}-{self.high:.2f}]"


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles of at least one value.

    >>> print(spread([1.0, 2.0, 3.0, 4.0, 9.0]))
    3.00 [2.00-4.00]
    >>> print(spread([1.5]))
    1.50 [1.50-1.50]
    """
    low, median, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else 3 * [*values]
    return Spread(median=median, low=low, high=high)


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One contestant in one case."""

    who: str
    """``convit``, ``twin``, ``timm``, ``deit``, or ``onnx`` for the exported file."""
    seconds: tuple[float, ...] = ()
    """Of one step, in every round; empty if it was not timed."""
    peak_bytes: int | None = None
    """The most memory that was taken at once."""
    error: str | None = None
    """Why it could not be measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """All contestants in one case.

    Example:
        >>> case = Case(model="convit_tiny_patch16_224", image_size=224, batch_size=1)
        >>> ours, twin = Result(who="convit", seconds=(2.0, 3.3, 2.2)), Result(who="twin", seconds=(2.0, 3.0, 2.0))
        >>> print(Measured(case=case, results=(ours, twin)).time_ratio("convit", "twin"))
        1.10 [1.05-1.10]
    """

    case: Case
    results: tuple[Result, ...]
    steps_per_sample: int = 1
    """How many steps in a row were timed as one."""

    def of(self, who: str) -> Result | None:
        """The contestant of that name, if it took part."""
        return next((result for result in self.results if result.who == who), None)

    def time_ratio(self, who: str, other: str) -> Spread | None:
        """``who``'s time over ``other``'s, round by round; None where either was not timed."""
        one, two = self.of(who), self.of(other)
        if one is None or two is None or not one.seconds or not two.seconds:
            return None
        return spread([a / b for a, b in zip(one.seconds, two.seconds, strict=True)])

    def memory_ratio(self, who: str, other: str) -> float | None:
        """``who``'s peak memory over ``other``'s; None where either was not measured."""
        one, two = self.of(who), self.of(other)
        return one.peak_bytes / two.peak_bytes if one and two and one.peak_bytes and two.peak_bytes else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "case": asdict(self.case) | {"patch": self.case.patch_size},
            "steps_per_sample": self.steps_per_sample,
            "results": [self._result(result) for result in self.results],
        }

    def _result(self, result: Result) -> dict[str, Any]:
        time = spread(result.seconds) if result.seconds else None
        ratios = {other: self.time_ratio(result.who, other) for other in ("twin", "convit")}
        return {
            "who": result.who,
            "label": self.case.label(result.who),
            "seconds": list(result.seconds),
            "seconds_per_step": None if time is None else asdict(time),
            "images_per_second": None if time is None else self.case.batch_size / time.median,
            **{f"time_over_{other}": None if ratio is None else asdict(ratio) for other, ratio in ratios.items()},
            "peak_bytes": result.peak_bytes,
            "peak_over_twin": self.memory_ratio(result.who, "twin"),
            "error": result.error,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """A whole run, and the machine that it was on."""

    facts: Facts
    cases: tuple[Measured, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"machine": asdict(self.facts), "cases": [measured.to_dict() for measured in self.cases]}
