"""Pictures of results over seeds: learning curves, points with their standard error, how far heads look."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from convit.analysis.plots import non_locality_over_training
from convit.experiments.results import Result
from convit.experiments.tables import Mean, percent
from convit.figures import label, new_figure

Panel = tuple[float, Mapping[str, Sequence[Result]]]
"""Of runs on a fraction of each class: the lines by name, and the results of all seeds of each."""


def colours(count: int) -> list[object]:
    """Colours of lines, told apart also without colour vision (Okabe and Ito) up to eight; then a scale."""
    names = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999"]
    return list(names[:count] if count <= len(names) else colormaps["viridis"](np.linspace(0, 0.9, count)))


Over = Literal["images shown (epochs of all the data)", "minutes of training"]
SHOWN, MINUTES = get_args(Over)
"""What learning curves go over. One epoch of a fraction f of the data is worth f epochs of all of it; minutes are those
of the training steps alone."""


def learning_curves(panels: Sequence[Panel], title: str, over: Over = SHOWN) -> Figure:
    """Top-1 on the validation images, the mean over seeds and its standard error as a band."""
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = new_figure(max(5.0, 3.4 * columns) + 2.6, 3.0 * rows + 1.0, rows, columns, share=True)
    for number, empty in enumerate(axes[len(panels) :], len(panels)):
        empty.set_visible(False)
        axes[number - columns].tick_params(labelbottom=True)  # the lowest of its column
    for place, (fraction, lines) in zip(axes, panels, strict=False):
        for colour, (name, results) in zip(colours(len(lines)), lines.items(), strict=True):
            _curve(place, name, _places(over, fraction, results), results, colour)
        label(place, f"{percent(fraction)} of each class", "", "")
    figure.suptitle(title, fontsize=10)
    figure.supxlabel(over, fontsize=10)
    figure.supylabel("top-1 on the validation images (%)", fontsize=10)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right upper", frameon=False, fontsize=8)
    return figure


def _places(over: Over, worth: float, results: Sequence[Result]) -> np.ndarray:
    """Where each epoch ends; of minutes the mean over the seeds."""
    if over == MINUTES:
        places: np.ndarray = _of_all(results, "seconds").cumsum(axis=1).mean(axis=0) / 60
        return places
    return worth * np.arange(1, min(len(result.history) for result in results) + 1)


def _curve(axes: Axes, name: str, places: np.ndarray, results: Sequence[Result], colour: object) -> None:
    values = _of_all(results, "val_top1")
    mean = values.mean(axis=0)
    axes.plot(places, mean, color=colour, linewidth=1.5, label=name, marker="o" if len(mean) == 1 else None)
    if len(results) > 1:
        error = values.std(axis=0, ddof=1) / np.sqrt(len(results))
        axes.fill_between(places, mean - error, mean + error, color=colour, alpha=0.18, linewidth=0)


def _of_all(results: Sequence[Result], key: str) -> np.ndarray:
    """A value by seed and epoch; runs that stopped early end it at the shortest."""
    length = min(len(result.history) for result in results)
    return np.array([[record[key] for record in result.history[:length]] for result in results])


def mean_history(results: Sequence[Result], key: str) -> list[dict[str, Any]]:
    """A value of every head after each epoch, its mean over the seeds, as far as all of them went."""
    means = _of_all(results, key).mean(axis=0)
    return [{"epoch": epoch, key: heads.tolist()} for epoch, heads in enumerate(means, 1)]


def non_locality(results: Sequence[Result], title: str) -> Figure:
    """How far each layer looks by epoch, mean over its heads and the seeds (figure 5)."""
    figure = non_locality_over_training(mean_history(results, "non_locality"))
    figure.axes[0].set_title(f"{title}: how far each layer looks, mean of its heads", fontsize=10)
    return figure


def points(
    axes: Axes, x: Sequence[float], means: Sequence[Mean | None], name: str, colour: object, style: str = "-o"
) -> None:
    """A line through means, with their standard errors; without those that are missing."""
    there = [(place, mean) for place, mean in zip(x, means, strict=True) if mean]
    places, values = [place for place, _ in there], [mean.mean for _, mean in there]
    errors = [mean.error or 0.0 for _, mean in there]
    axes.errorbar(
        places, values, yerr=errors, fmt=style, color=colour, capsize=3, markersize=5, linewidth=1.5, label=name
    )


def log_axis(axes: Axes, values: Sequence[float], percent: bool = False) -> None:
    """A logarithmic x axis with a tick at each value."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(list(values)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:g}%" if percent else f"{v:g}"))
