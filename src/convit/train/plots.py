"""The pictures of a run: learning curves, gates over training, confusion matrix."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from convit.figures import BLUE, GREY, ORANGE, gates_over_training, label, marker, new_figure, plain, save
from convit.train.evaluation import Evaluation, best_record

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
    figure, (left, right) = new_figure(9.6, 3.6, columns=2)
    epochs = [record["epoch"] for record in history]
    left.plot(
        epochs, [r["train_loss"] for r in history], color=GREY, marker=marker(epochs), label="training, augmented"
    )
    left.plot(epochs, [r["val_loss"] for r in history], color=BLUE, marker=marker(epochs), label="validation")
    label(left, "Loss", "epoch", "cross-entropy (nats)")
    best = best_record(history)
    right.plot(epochs, [r["val_top1"] for r in history], color=BLUE, marker=marker(epochs), label="top-1")
    if "val_top5" in history[0]:
        right.plot(epochs, [r["val_top5"] for r in history], color=ORANGE, marker=marker(epochs), label="top-5")
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
    label(right, "Accuracy on the validation images", "epoch", "percent")
    right.set_ylim(0, 103)
    for axes in (left, right):
        axes.legend(frameon=False, loc="best")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    save(figure, path)


def gates(history: list[dict[str, Any]], path: Path) -> None:
    """The gate of every head by epoch."""
    save(gates_over_training(history), path)


def confusion(result: Evaluation, path: Path, *, title: str) -> None:
    """Which classes are taken for which: counts, coloured by the part of the true class."""
    count = len(result.class_names)
    part = result.confusion / np.maximum(result.confusion.sum(axis=1, keepdims=True), 1)
    side = min(16.0, max(4.6, 0.5 * count + 2.2)) if count <= MOST_CLASSES else 10.0
    figure, (axes,) = new_figure(side + 0.8, side)
    image = axes.imshow(part, cmap="Blues", vmin=0, vmax=1)
    if count <= MOST_CLASSES:
        names = [plain(name if len(name) <= 24 else name[:23] + "…") for name in result.class_names]
        slanted = max(map(len, names)) > 3
        axes.set_xticks(range(count), names, rotation=45 if slanted else 0, ha="right" if slanted else "center")
        axes.set_yticks(range(count), names)
        for i, j in np.ndindex(count, count):
            if result.confusion[i, j]:
                color = "white" if part[i, j] > 0.55 else "black"
                axes.text(j, i, str(result.confusion[i, j]), ha="center", va="center", color=color, fontsize=8)
    axes.spines[:].set_visible(False)
    label(axes, f"{title}\ntop-1 {result.top1:.1f}% of {result.num_images}", "taken for", "true class", grid=False)
    figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03, label="part of the true class")
    save(figure, path)
