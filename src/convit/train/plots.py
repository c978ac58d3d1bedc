"""The pictures of a run: learning curves, gates over training, confusion matrix."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from convit.train.evaluation import Evaluation, best_record

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#666666"  # tell apart also without colour vision (Okabe and Ito)
MOST_CLASSES = 40
"""With more classes than this the confusion matrix has no numbers and no names."""


def draw_history(history: list[dict[str, Any]], folder: Path) -> None:
    """``curves.png`` and ``gates.png`` of the epochs so far; nothing before the first is complete."""
    if not history:
        return
    curves(history, folder / "curves.png")
    if history[-1]["gates"]:
        gates(history, folder / "gates.png")


def curves(history: list[dict[str, Any]], path: Path) -> None:
    """Loss and accuracy by epoch."""
    figure, (left, right) = _figure(9.6, 3.6, columns=2)
    epochs = [record["epoch"] for record in history]
    left.plot(
        epochs, [r["train_loss"] for r in history], color=GREY, marker=_marker(epochs), label="training, augmented"
    )
    left.plot(epochs, [r["val_loss"] for r in history], color=BLUE, marker=_marker(epochs), label="validation")
    _labels(left, "Loss", "epoch", "cross-entropy (nats)")
    best = best_record(history)
    right.plot(epochs, [r["val_top1"] for r in history], color=BLUE, marker=_marker(epochs), label="top-1")
    if "val_top5" in history[0]:
        right.plot(epochs, [r["val_top5"] for r in history], color=ORANGE, marker=_marker(epochs), label="top-5")
    right.plot(best["epoch"], best["val_top1"], "o", color=BLUE, markersize=8, markerfacecolor="none")
    right.annotate(
        f"best {best['val_top1']:.1f}%",
        (best["epoch"], best["val_top1"]),
        xytext=(0, -16),
        textcoords="offset points",
        ha="right" if best["epoch"] > epochs[-1] / 2 else "left",
        va="top",
        color=BLUE,
        bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1},
    )
    _labels(right, "Accuracy on the validation images", "epoch", "percent")
    right.set_ylim(0, 103)
    for axes in (left, right):
        axes.legend(frameon=False, loc="best")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    _save(figure, path)


def gates(history: list[dict[str, Any]], path: Path) -> None:
    """The gate of every head by epoch, a panel for each layer (the paper's figure 6)."""
    values = np.array([record["gates"] for record in history])  # (epochs, layers, heads)
    epochs = [record["epoch"] for record in history]
    layers = values.shape[1]
    columns = min(5, layers)
    rows = -(-layers // columns)
    figure, panels = _figure(max(5.0, 2.1 * columns + 0.6), 1.9 * rows + 0.9, rows=rows, columns=columns, share=True)
    for layer, axes in enumerate(panels):
        axes.set_visible(layer < layers)
        if layer >= layers:
            continue
        axes.plot(epochs, values[:, layer], color=BLUE, alpha=0.5, linewidth=1, marker=_marker(epochs))
        axes.plot(epochs, values[:, layer].mean(axis=1), color=ORANGE, linewidth=1.5, marker=_marker(epochs))
        _labels(axes, f"layer {layer + 1}", "", "")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    figure.suptitle("Gate of every head (blue), mean of the layer (orange)\n0: by content, 1: by position", fontsize=10)
    figure.supxlabel("epoch", fontsize=10)
    figure.supylabel("gate", fontsize=10)
    _save(figure, path)


def confusion(result: Evaluation, path: Path, *, title: str) -> None:
    """Which classes are taken for which: counts, coloured by the part of the true class."""
    count = len(result.class_names)
    part = result.confusion / np.maximum(result.confusion.sum(axis=1, keepdims=True), 1)
    side = min(16.0, max(4.6, 0.5 * count + 2.2)) if count <= MOST_CLASSES else 10.0
    figure, (axes,) = _figure(side + 0.8, side)
    image = axes.imshow(part, cmap="Blues", vmin=0, vmax=1)
    if count <= MOST_CLASSES:
        names = [_plain(name if len(name) <= 24 else name[:23] + "…") for name in result.class_names]
        slanted = max(map(len, names)) > 3
        axes.set_xticks(range(count), names, rotation=45 if slanted else 0, ha="right" if slanted else "center")
        axes.set_yticks(range(count), names)
        for i, j in np.ndindex(count, count):
            if result.confusion[i, j]:
                color = "white" if part[i, j] > 0.55 else "black"
                axes.text(j, i, str(result.confusion[i, j]), ha="center", va="center", color=color, fontsize=8)
    axes.spines[:].set_visible(False)
    _labels(axes, f"{title}\ntop-1 {result.top1:.1f}% of {result.num_images}", "taken for", "true class", grid=False)
    figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03, label="part of the true class")
    _save(figure, path)


def _figure(
    width: float, height: float, rows: int = 1, columns: int = 1, share: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure that no window system and no global state knows of, and its axes."""
    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share).flat)


def _labels(axes: Axes, title: str, x: str, y: str, grid: bool = True) -> None:
    axes.set_title(_plain(title), fontsize=10)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if grid:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)


def _plain(text: str) -> str:
    """Names come from users: a dollar sign in them is no formula."""
    return text.replace("$", r"\$")


def _marker(epochs: list[int]) -> str | None:
    """A line of one point shows nothing without a marker."""
    return "o" if len(epochs) == 1 else None


def _save(figure: Figure, path: Path) -> None:
    """Writes the picture whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a class name in a script that the font lacks
        figure.savefig(temporary, format="png")
    temporary.replace(path)
