"""The reliability diagram: how often a model is right, by how sure it is."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from convit.figures import BLUE, GREY, label, new_figure, plain, save
from convit.intervals import wilson_interval
from convit.training.reliability import BINS, Reliability, Scores


def draw_reliability(found: Reliability, path: Path, *, title: str) -> None:
    """The accuracy of the images of each bin, with its 95% interval, over the mean of their highest probability; below
    it the number of images. One panel without the temperature, and one with it if there is one."""
    panels = [(found.before, "not calibrated" if found.calibration is None else "temperature 1")]
    if found.calibration is not None and found.after is not None:
        panels.append((found.after, f"temperature {found.calibration.temperature:.3f}"))
    count = len(panels)
    figure, axes = new_figure(4.4 * count + 0.2, 5.4, rows=2, columns=count)
    for column, (scores, name) in enumerate(panels):
        _accuracy(axes[column], scores, name)
        below = axes[count + column]
        below.bar((np.arange(BINS) + 0.5) / BINS, scores.counts, width=0.92 / BINS, color=GREY)
        label(below, "", "highest probability", "images")
    for panel in axes:
        panel.set_xlim(0, 1)
    place = axes[0].get_subplotspec()
    assert place is not None
    place.get_gridspec().set_height_ratios([3, 1])
    figure.suptitle(plain(title), fontsize=10)
    save(figure, path)


def _accuracy(axes: Axes, scores: Scores, name: str) -> None:
    there = np.flatnonzero(scores.counts)
    accuracy = scores.right[there] / scores.counts[there]
    ends = np.array([wilson_interval(int(scores.right[i]), int(scores.counts[i])) for i in there])
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="exact probabilities")
    axes.bar((there + 0.5) / BINS, accuracy, width=0.92 / BINS, color=BLUE, alpha=0.25)
    lengths = np.abs(ends.T - accuracy)
    axes.errorbar(
        scores.confidence[there], accuracy, yerr=lengths, fmt="o", color=BLUE, markersize=4, linewidth=1, label="images"
    )
    label(axes, f"{name}: calibration error {scores.ece.value:.1%}", "", "part that is right")
    axes.set_ylim(0, 1.02)
    axes.legend(frameon=False, loc="upper left")
