"""The table of a report, in 100 columns."""

from convit.benchmark.report import Measured, Report, Result, spread

LEGEND = (
    "ms: median of one step over all rounds, ± half the width of its middle half.",
    "time / twin, time / ours: median [quartiles] of the rounds' ratios.",
    "The twin is the same model with plain attention in every block. All weights are random.",
)
MEMORY_LEGEND = "peak MB: weights, optimiser, gradients and activations of one step, in 10^6 bytes."


def table(report: Report) -> str:
    """Head, one block of rows for each case, legend."""
    memory = any(measured.case.memory for measured in report.cases)
    heading = f"{'':18}{'ms':>9}{'±':>5}{'images/s':>10}{'time / twin':>18}{'time / ours':>18}"
    lines = [*report.facts.lines(), "", heading + (f"{'peak MB':>10}{'/ twin':>8}" if memory else "")]
    for measured in report.cases:
        rounds = max(len(result.seconds) for result in measured.results)
        lines += ["", measured.case.title + (f"; {rounds} rounds" if rounds else "")]
        lines += [_row(measured, result) for result in measured.results]
    return "\n".join((*lines, "", *LEGEND, *([MEMORY_LEGEND] if memory else [])))


def _row(measured: Measured, result: Result) -> str:
    label = f"  {measured.case.label(result.who):16}"
    if result.error is not None:
        return f"{label}  {result.error}"
    cells = _times(measured, result)
    if result.peak_bytes is not None:
        ratio = measured.memory_ratio(result.who, "twin")
        cells += f"{result.peak_bytes / 1e6:10,.0f}" + (f"{ratio:8.2f}" if ratio else "")
    return (label + cells).rstrip()


def _times(measured: Measured, result: Result) -> str:
    if not result.seconds:
        return " " * 60
    time = spread(result.seconds)
    speed = measured.case.batch_size / time.median
    cells = f"{1000 * time.median:9.{_digits(1000 * time.median)}f}{50 * (time.high - time.low) / time.median:4.0f}%"
    cells += f"{speed:10,.{_digits(speed)}f}"
    for other in ("twin", "convit"):
        ratio = measured.time_ratio(result.who, other) if result.who != other else None
        cells += f"{str(ratio) if ratio else '1' if result.who == other else '':>18}"
    return cells


def _digits(value: float) -> int:
    """How many places of a number are worth a look: four digits in all, at most two of them after the point."""
    return 2 if value < 10 else 1 if value < 1000 else 0
