"""Pictures of results over seeds: learning curves and points with their standard error."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from convit.experiments.cells import Result
from convit.experiments.statistics import Mean
from convit.figures import label, new_figure

Named = Sequence[tuple[str, Sequence[Result]]]
"""Lines of a picture: their names, and the results of all seeds of each."""


def colours(count: int) -> list[object]:
    """Colours of lines, told apart also without colour vision (Okabe and Ito) up to eight; then a scale."""
    names = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999"]
    return list(names[:count] if count <= len(names) else colormaps["viridis"](np.linspace(0, 0.9, count)))


def learning_curves(panels: Sequence[tuple[str, float, Named]], title: str) -> Figure:
    """Top-1 on the validation images against images shown, the mean over seeds and its standard error as a band.

    Args:
        panels: title, epochs of all the data that one epoch is worth, and lines.
        title: above all panels.
    """
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = new_figure(max(5.0, 3.4 * columns) + 2.6, 3.0 * rows + 1.0, rows, columns, share=True)
    for number, empty in enumerate(axes[len(panels) :], len(panels)):
        empty.set_visible(False)
        axes[number - columns].tick_params(labelbottom=True)  # the lowest of its column
    for place, (heading, worth, lines) in zip(axes, panels, strict=False):
        for colour, (name, results) in zip(colours(len(lines)), lines, strict=True):
            _curve(place, name, worth, results, colour)
        label(place, heading, "", "")
    figure.suptitle(title, fontsize=10)
    figure.supxlabel("images shown (epochs of all the data)", fontsize=10)
    figure.supylabel("top-1 on the validation images (%)", fontsize=10)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right upper", frameon=False, fontsize=8)
    return figure


def _curve(axes: Axes, name: str, worth: float, results: Sequence[Result], colour: object) -> None:
    """One line; runs that stopped early end it at the shortest."""
    length = min(len(result.history) for result in results)
    values = np.array([[record["val_top1"] for record in result.history[:length]] for result in results])
    shown = worth * np.arange(1, length + 1)
    mean = values.mean(axis=0)
    axes.plot(shown, mean, color=colour, linewidth=1.5, label=name, marker="o" if length == 1 else None)
    if len(results) > 1:
        error = values.std(axis=0, ddof=1) / np.sqrt(len(results))
        axes.fill_between(shown, mean - error, mean + error, color=colour, alpha=0.18, linewidth=0)


def points(axes: Axes, x: Sequence[float], means: Sequence[Mean], name: str, colour: object, style: str = "-o") -> None:
    """A line through means, with their standard errors."""
    errors = [mean.error or 0.0 for mean in means]
    values = [mean.mean for mean in means]
    axes.errorbar(x, values, yerr=errors, fmt=style, color=colour, capsize=3, markersize=5, linewidth=1.5, label=name)


def log_axis(axes: Axes, values: Sequence[float], percent: bool = False) -> None:
    """A logarithmic x axis with a tick at each value."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(list(values)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:g}%" if percent else f"{v:g}"))
