"""Plots of metrics: tensors or a run's history in, a matplotlib figure out. :func:`convit.figures.save` writes it.

Layers and heads are numbered from 0 in arguments, and from 1 in figures.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from matplotlib.ticker import FixedLocator, FormatStrFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray
from torch import Tensor

from convit.analysis.map_plot import attention_maps
from convit.analysis.metrics import centres, spans
from convit.errors import InputError
from convit.figures import BLUE, GREY, ORANGE, History, by_epoch, gates_over_training, label, marker, new_figure

__all__ = ["attention_maps", "gates", "gates_over_training", "kernels", "non_locality", "non_locality_over_training"]

LOG_FROM = 20
"""With more epochs than this they are on a log axis."""


def gates(values: Mapping[int, Tensor]) -> Figure:
    """The gate of every head, by layer.

    Args:
        values: ``(h,)``, 0 to 1, by layer number: what :func:`convit.analysis.gates` gives.

    Raises:
        InputError: no layer, or not one number for each head.
    """
    figure, axes = _heads_by_layer(values, "gates", "Gate of every head")
    axes.set_ylabel("gate (0: by content, 1: by position)")
    axes.set_ylim(-0.03, 1.03)
    return figure


def non_locality(values: Mapping[int, Tensor], uniform: float | None = None) -> Figure:
    """The non-locality of every head, by layer.

    Args:
        values: ``(h,)``, in patches, by layer number: means over images of :func:`convit.analysis.non_locality`.
        uniform: that of a head that attends to all patches alike, as a line to compare with.

    Raises:
        InputError: no layer, or not one number for each head.
    """
    figure, axes = _heads_by_layer(values, "values", "How far every head looks", uniform)
    axes.set_ylabel("non-locality (patches)")
    axes.set_ylim(bottom=0)
    return figure


def kernels(pos_weight: Mapping[int, Tensor], gates: Mapping[int, Tensor] | None = None) -> Figure:
    """The positional attention of every head around the query patch: the convolution kernel of each layer.

    A head is a circle around its attention centre, with its span (one sigma) as radius; the larger its gate, the
    stronger its colour. The panels reach as far as the circles, 2.5 to 6.5 patches from the query. An arrow at the
    border points to a centre outside the panel; heads without a centre, and those whose circle is wider than the panel,
    are named below it.

    Args:
        pos_weight: ``v_pos``, ``(h, 3)`` by layer number: what :func:`convit.analysis.position_weights` gives.
        gates: ``(h,)`` by layer number; without one all heads are drawn alike.

    Raises:
        InputError: no layer, weights of another shape.

    Example:
        >>> import torch
        >>> figure = kernels({0: torch.tensor([[2.0, 0.0, -1.0], [0.0, 0.0, 0.5]])}, {0: torch.tensor([0.7, 0.2])})
        >>> figure.axes[0].get_xlabel()
        'no centre: head 2'
    """
    if not pos_weight:
        raise InputError("pos_weight: got no layer, expected at least one; a model without GPSA or PSA layers has none")
    heads = {index: _circles(pos_weight[index]) for index in sorted(pos_weight)}
    reach = _extent(list(heads.values()))
    columns = min(4, len(heads))
    rows = -(-len(heads) // columns)
    figure, panels = new_figure(max(4.4, 2.35 * columns + 0.3), 2.6 * rows + 1.1, rows, columns)
    figure.set_layout_engine("constrained", h_pad=0.1)
    for axes in panels[len(heads) :]:
        axes.set_visible(False)
    for axes, (index, circles) in zip(panels, heads.items(), strict=False):
        gate = None if gates is None else gates.get(index)
        if gate is not None and gate.shape != (len(circles),):
            raise InputError(f"gates: got shape {tuple(gate.shape)} for layer {index}, expected {(len(circles),)}")
        weights = np.ones(len(circles)) if gate is None else gate.detach().cpu().double().numpy()
        _kernel(axes, circles, weights, reach, f"layer {index + 1}")
    said = ["darker: larger gate"] if gates else []
    if any((np.abs(circles[:, :2]) > reach).any() for circles in heads.values()):
        said.append("arrow: to a centre farther out")
    legend = ["Where each head looks by position", "circle: centre and span (1 sigma), square: the query"]
    figure.suptitle("\n".join([*legend, "; ".join(said)]).strip(), fontsize=10)
    figure.supxlabel("patches to the right", fontsize=10)
    figure.supylabel("patches down", fontsize=10)
    return figure


def non_locality_over_training(history: History) -> Figure:
    """The non-locality of each layer by epoch, mean over its heads (the paper's figures 5 and 13).

    Args:
        history: a run's epochs; those without ``non_locality`` are left out.

    Raises:
        InputError: no epoch has it.
    """
    advice = "'convit train' and convit.train write it"
    epochs, values = by_epoch(history, "non_locality", advice)
    layers = values.mean(axis=2)  # (epochs, layers)
    count = layers.shape[1]
    figure, (axes,) = new_figure(6.4, max(3.6, 0.17 * count + 1.4))
    top = 1.05 * float(layers.max()) or 1.0
    colors = colormaps["viridis"](np.linspace(0, 0.85, count))
    places = _apart((layers[-1] / top).tolist(), least=0.055 if count <= 14 else 0.9 / count)
    for layer in range(count):
        axes.plot(epochs, layers[:, layer], color=colors[layer], linewidth=1.6, marker=marker(epochs))
        axes.annotate(
            f"layer {layer + 1}",
            (epochs[-1], layers[-1, layer]),
            xytext=(1.05, places[layer]),
            textcoords="axes fraction",
            fontsize=8,
            va="center",
            arrowprops={"arrowstyle": "-", "color": colors[layer], "shrinkA": 1, "shrinkB": 0, "relpos": (0, 0.5)},
        )
    label(axes, "How far each layer looks, mean of its heads", "epoch", "non-locality (patches)")
    axes.set_ylim(0, top)
    _epoch_axis(axes, epochs)
    return figure


# -- by layer ----------------------------------------------------------------------------------------------------------


def _heads_by_layer(
    values: Mapping[int, Tensor], name: str, title: str, reference: float | None = None
) -> tuple[Figure, Axes]:
    """A dot for each head, side by side in their order, and the mean of each layer."""
    if not values:
        raise InputError(f"{name}: got no layer, expected at least one")
    layers = sorted(values)
    for layer in layers:
        if values[layer].ndim != 1 or len(values[layer]) == 0 or not values[layer].isfinite().all():
            got = tuple(values[layer].shape)
            raise InputError(f"{name}: got shape {got} for layer {layer}, expected (heads,), finite numbers")
    figure, (axes,) = new_figure(max(5.4, 0.42 * len(layers) + 1.8), 3.6)
    for layer in layers:
        heads = values[layer].detach().cpu().double().numpy()
        beside = (np.arange(len(heads)) - (len(heads) - 1) / 2) * min(0.12, 0.6 / len(heads))
        named = "heads, first to last" if layer == layers[0] else None
        axes.plot(layer + 1 + beside, heads, "o", color=BLUE, alpha=0.6, markersize=4, markeredgewidth=0, label=named)
    means = [values[layer].double().mean().item() for layer in layers]
    axes.plot(
        [layer + 1 for layer in layers],
        means,
        "-_",
        color=ORANGE,
        linewidth=1.5,
        markersize=12,
        label="mean of the layer",
    )
    if reference is not None:
        axes.axhline(reference, color=GREY, linestyle="--", linewidth=1, label="uniform attention")
    label(axes, title, "layer", "")
    axes.set_xticks([layer + 1 for layer in layers])
    axes.set_xlim(layers[0] + 0.4, layers[-1] + 1.6)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure, axes


# -- kernels -----------------------------------------------------------------------------------------------------------


def _circles(pos_weight: Tensor) -> NDArray[np.float64]:
    """Centre and span of every head, ``(h, 3)``; NaN and infinity where there is no centre."""
    weight = pos_weight.detach().cpu().double()
    return np.column_stack((centres(weight).numpy(), spans(weight).numpy()))


def _extent(layers: Sequence[NDArray[np.float64]]) -> float:
    """To the border of the cell that the farthest circle reaches, within reason."""
    circles = np.concatenate(layers)
    circles = circles[np.isfinite(circles).all(axis=1)]
    reach = (np.abs(circles[:, :2]).max(axis=1) + circles[:, 2]).max() if len(circles) else 0.0
    return min(6.5, max(2.5, math.ceil(reach) + 0.5))


def _kernel(axes: Axes, circles: NDArray[np.float64], weights: NDArray[np.float64], reach: float, title: str) -> None:
    """One layer's panel."""
    for border in np.arange(-math.floor(reach) - 0.5, reach + 1):
        axes.axvline(border, color="#dddddd", linewidth=0.5, zorder=0)
        axes.axhline(border, color="#dddddd", linewidth=0.5, zorder=0)
    axes.add_patch(Rectangle((-0.5, -0.5), 1, 1, facecolor="none", edgecolor=ORANGE, linewidth=1.5, zorder=3))
    missing, wide = [], []
    for head, ((x, y, span), weight) in enumerate(zip(circles, weights, strict=True), start=1):
        strength = 0.15 + 0.85 * float(weight)
        far = max(abs(x), abs(y))
        if not np.isfinite(span):
            missing.append(head)
        elif far > reach:
            end = np.array((x, y)) * reach / far
            arrow = {"arrowstyle": "-|>", "color": BLUE, "alpha": strength, "shrinkA": 0, "shrinkB": 0}
            axes.annotate("", 0.99 * end, 0.8 * end, arrowprops=arrow)
        else:
            axes.add_patch(Circle((x, y), span, facecolor=(BLUE, 0.1 * strength), edgecolor=(BLUE, strength), zorder=2))
            axes.plot(x, y, "o", color=BLUE, alpha=strength, markersize=3, markeredgewidth=0, zorder=4)
            if span > 2 * reach:
                wide.append(head)
    label(axes, title, "", "", grid=False)
    said = [_heads("no centre", missing, len(circles)), _heads("wider than this", wide, len(circles))]
    axes.set_xlabel("\n".join(filter(None, said)), fontsize=8)
    axes.set_xlim(-reach, reach)
    axes.set_ylim(reach, -reach)
    axes.set_aspect("equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _heads(what: str, heads: Sequence[int], count: int) -> str:
    """``no centre: heads 2, 5``, or how many if they are many."""
    if not heads:
        return ""
    if len(heads) > 4:
        return f"{what}: {len(heads)} of {count} heads"
    return f"{what}: {'head' if len(heads) == 1 else 'heads'} {', '.join(map(str, heads))}"


# -- by epoch ----------------------------------------------------------------------------------------------------------


def _epoch_axis(axes: Axes, epochs: Sequence[int]) -> None:
    """Whole epochs; on a log axis if they are many."""
    if len(epochs) == 1:
        axes.set_xlim(epochs[0] - 1, epochs[0])
        axes.set_xticks(epochs)
        return
    axes.set_xlim(epochs[0], epochs[-1])
    if epochs[-1] > LOG_FROM:
        axes.set_xscale("log")
        ticks = [factor * 10**power for power in range(7) for factor in (1, 2, 5)]
        axes.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if epochs[0] <= tick <= epochs[-1]]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FormatStrFormatter("%d"))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _apart(wanted: Sequence[float], least: float) -> list[float]:
    """Places up to 1 near those wanted, in the same order, at least ``least`` apart.

    >>> [round(place, 2) for place in _apart([0.5, 0.5, 0.98, 1.0], 0.1)]
    [0.5, 0.6, 0.9, 1.0]
    """
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    places = [wanted[i] for i in order]
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + least)
    limit = 1.0
    for i in reversed(range(len(places))):
        places[i] = min(places[i], limit)
        limit = places[i] - least
    back = dict(zip(order, places, strict=True))
    return [back[i] for i in range(len(places))]
