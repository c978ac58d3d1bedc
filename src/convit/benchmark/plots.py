"""Cost against resolution: seconds per image of every contestant by the side of the image."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from convit.benchmark.report import Measured, Report, spread
from convit.figures import BLUE, GREY, ORANGE, new_figure, plain, save

# Colours that tell apart without colour vision (Okabe and Ito), each with a marker of its own.
STYLES = {
    "convit": (BLUE, "o"),
    "twin": (ORANGE, "s"),
    "timm": ("#009e73", "^"),
    "deit": (GREY, "D"),
    "onnx": ("#cc79a7", "v"),
}


def draw_resolutions(report: Report, path: Path) -> None:
    """Writes the picture, a panel for each model, mode, type, and eager or compiled, with quartiles as bars.

    Where a size was measured in several batches, the largest one counts.
    """
    panels: dict[tuple[object, ...], dict[int, Measured]] = {}
    for measured in report.cases:
        case = measured.case
        if any(result.seconds for result in measured.results):
            sizes = panels.setdefault((case.model, case.mode, case.precision, case.compiled), {})
            if case.image_size not in sizes or sizes[case.image_size].case.batch_size < case.batch_size:
                sizes[case.image_size] = measured
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = new_figure(4.9 * columns + 0.4, 3.9 * rows + 0.6, rows, columns)
    for one, sizes in zip(axes, panels.values(), strict=False):
        _panel(one, [sizes[size] for size in sorted(sizes)])
    for one in axes[len(panels) :]:
        one.set_visible(False)
    figure.suptitle(plain(f"Cost against resolution\n{report.facts.lines()[0]}"), fontsize=9)
    save(figure, path)


def _panel(axes: Axes, cases: Sequence[Measured]) -> None:
    case = cases[0].case
    for who, (color, marker) in STYLES.items():
        points = []
        for measured in cases:
            result = measured.of(who)
            if result is not None and result.seconds:
                time, batch = spread(result.seconds), measured.case.batch_size
                points.append(
                    (measured.case.image_size, *(1000 * t / batch for t in (time.median, time.low, time.high)))
                )
        if points:
            sizes, middle, low, high = zip(*points, strict=True)
            bars = [
                [m - lo for m, lo in zip(middle, low, strict=True)],
                [h - m for m, h in zip(middle, high, strict=True)],
            ]
            axes.errorbar(
                sizes, middle, bars, color=color, marker=marker, markersize=5, capsize=2, label=case.label(who)
            )
    _log_axes(axes, [measured.case.image_size for measured in cases])
    batches = list(dict.fromkeys(measured.case.batch_size for measured in cases))
    in_batches = f"batch {batches[0]}" if len(batches) == 1 else f"batches {', '.join(map(str, batches))}"
    axes.set_title(f"{case.model}: {case.step}\n{case.precision}, {case.how}, {in_batches}", fontsize=9)
    axes.legend(frameon=False, fontsize=8)


def _log_axes(axes: Axes, sides: Sequence[int]) -> None:
    """Both axes in logarithms, with plain numbers: the sizes that were measured, and rounded times."""
    axes.set(xscale="log", yscale="log", xlabel="side of the image (pixels)", ylabel="time per image (ms)")
    axes.xaxis.set_major_locator(FixedLocator(sides))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda side, _: f"{side:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 7) if high < 10 * low else (1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda time, _: f"{time:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
