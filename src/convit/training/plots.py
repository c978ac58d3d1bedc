"""The pictures of a run: curves, gates, confusion, mistakes; and of the range test."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from convit.data import ImageSet
from convit.errors import one_line
from convit.figures import BLUE, GREY, ORANGE, gates_over_training, label, legend_below, marker, new_figure, plain, save
from convit.intervals import rate_with_interval
from convit.training.evaluation import Evaluation, best_record
from convit.training.mistakes import Mistake

NUMBERED, NAMED = 20, 40
"""With more classes than this the confusion matrix has no numbers, and no names: they could not be read."""
MOST_MISTAKES = 24
"""So many images are shown of those that were taken for something else."""


@contextlib.contextmanager
def spared(name: str, say: Callable[[str], None]) -> Iterator[None]:
    """Within it a picture, or a page, is made that the work does not depend on: where it cannot be, that is said.

    Raises:
        OSError: the disk is full or read-only, which is not of the picture.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # of a library that draws, a font, an image that is gone: whatever it is
        say(f"{name} could not be made ({one_line(error)}); all else is complete")


def draw_history(history: list[dict[str, Any]], folder: Path, say: Callable[[str], None]) -> None:
    """``curves.png`` and ``gates.png`` of the epochs so far; nothing before the first is complete.

    Args:
        history: a record of each epoch.
        folder: where to.
        say: told of a picture that could not be drawn.
    """
    if not history:
        return
    with spared("curves.png", say):
        curves(history, folder / "curves.png")
    if history[-1]["gates"]:
        with spared("gates.png", say):
            gates(history, folder / "gates.png")


def curves(history: list[dict[str, Any]], path: Path) -> None:
    """Loss and accuracy by epoch. Nothing is written over the curves."""
    figure, (left, right) = new_figure(9.6, 4.0, columns=2)
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
    ring: dict[str, Any] = {"color": BLUE, "markersize": 8, "markerfacecolor": "none", "label": "best epoch, kept"}
    right.plot(best["epoch"], best["val_top1"], "o", linestyle="none", **ring)
    found = f"best {best['val_top1']:.1f}% in epoch {best['epoch']}"
    label(right, f"Accuracy on the validation images: {found}", "epoch", "percent")
    right.set_ylim(0, 103)
    for axes in (left, right):
        legend_below(axes)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    save(figure, path)


def gates(history: list[dict[str, Any]], path: Path) -> None:
    """The gate of every head by epoch."""
    save(gates_over_training(history), path)


def confusion(result: Evaluation, path: Path, *, title: str) -> None:
    """The confusion matrix: counts, coloured by the fraction of the true class."""
    count = len(result.class_names)
    part = result.confusion / np.maximum(result.confusion.sum(axis=1, keepdims=True), 1)
    side = max(4.6, 0.38 * count + 2.2) if count <= NUMBERED else 8.0
    figure, (axes,) = new_figure(side + 0.8, side)
    figure.set_layout_engine("constrained", w_pad=0.14)  # or the label on the left is cut
    image = axes.imshow(part, cmap="Blues", vmin=0, vmax=1)
    if count <= NAMED:
        names = [plain(_start(name)) for name in result.class_names]
        slanted = max(map(len, names)) > 3
        turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
        size = 8 if count > NUMBERED else 9
        axes.set_xticks(range(count), names, fontsize=size, **turned)
        axes.set_yticks(range(count), names, fontsize=size)
        for i, j in np.ndindex(count, count):
            if result.confusion[i, j] and count <= NUMBERED:
                color = "white" if part[i, j] > 0.55 else "black"
                axes.text(j, i, str(result.confusion[i, j]), ha="center", va="center", color=color, fontsize=8)
    axes.spines[:].set_visible(False)
    heading = f"{title}\ntop-1 {rate_with_interval(result.right, result.num_images)}, {result.num_images} images"
    label(axes, heading, "taken for", "true class", grid=False)
    figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03, label="part of the true class")
    save(figure, path)


def mistakes(found: list[Mistake], path: Path, *, images: ImageSet, title: str) -> None:
    """The misclassified images, the highest loss first; no plot if there are none.

    Each is shown whole, with its name, its class, the predicted class and its probability.
    """
    if not found:
        return
    shown = found[:MOST_MISTAKES]
    columns = min(4, max(3, len(shown)))
    rows = -(-len(shown) // columns)
    figure, panels = new_figure(1.95 * columns, 2.5 * rows + 0.5, rows=rows, columns=columns)
    for axes in panels:
        axes.set_axis_off()
    for axes, mistake in zip(panels, shown, strict=False):
        picture = images.read(mistake.index)
        picture.thumbnail((400, 400))
        axes.imshow(np.asarray(picture), interpolation="nearest" if max(picture.size) < 100 else "antialiased")
        lines = (
            _end(mistake.name),
            f"is {_start(mistake.true)}",
            f"taken for {_start(mistake.predicted, 16)}",
            f"{mistake.probability:.0%} sure, loss {mistake.loss:.2f}",
        )
        axes.set_title("\n".join(map(plain, lines)), fontsize=8, loc="left", linespacing=1.15)
    figure.suptitle(
        plain(f"{_start(title, 70)}\n{len(shown)} of {len(found)} taken for something else, the highest loss first"),
        fontsize=10,
    )
    save(figure, path)


def rate_test(
    rates: NDArray[np.float64],
    losses: NDArray[np.float64],
    smooth: NDArray[np.float64],
    suggestion: float | None,
    path: Path,
) -> None:
    """The loss by learning rate of a range test, each ``(steps,)``, and the rate that it suggests."""
    figure, (axes,) = new_figure(6.4, 3.8)
    axes.plot(rates, losses, color=GREY, alpha=0.5, linewidth=1, label="each step")
    axes.plot(rates, smooth, color=BLUE, label="smoothed")
    if suggestion is not None:
        axes.axvline(suggestion, color=ORANGE, linestyle="--", label=f"falls most steeply: {suggestion:.1e}")
    axes.set_xscale("log")
    axes.set_ylim(0, min(losses.max(), 2 * smooth[0]) * 1.05)
    label(axes, "Learning-rate range test", "learning rate", "loss of the step's images (nats)")
    legend_below(axes)
    save(figure, path)


def _start(text: str, most: int = 24) -> str:
    """A name on one line, cut short at its end."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _end(text: str, most: int = 26) -> str:
    """A name on one line, cut short at its beginning: the end of a path tells more."""
    line = " ".join(text.split())
    return line if len(line) <= most else "…" + line[1 - most :]
