"""Attention maps of many layers and heads as one picture of tiles (the paper's figures 7, 15, 16 and 17).

All tiles, boxes and texts are in one axes whose units are inches from the top left: nothing is laid out twice, and
two hundred tiles are drawn in a second.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from convit.errors import InputError
from convit.figures import DPI, Picture, choose_fonts, drawable, plain
from convit.grid import Grid

Patch = tuple[int, int] | Literal["class token"]

DECADES = 4
"""The log scale ends this many decades below the largest attention."""
COLORS = "viridis"  # darker is less, also without colour vision and in grey
RED = "#f01010"
MARGIN, GAP, LINE, STRIP = 0.12, 0.07, 0.15, 0.14  # inches: around all, between tiles, a line of text, a gate
ROW_NAMES, BAR = 0.6, 2.9
PICTURE = (2.4, 1.5)
"""The largest width and height of the picture, in inches."""
NARROWEST = 6.0


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One layer: attention of the query over the patches, ``(h, H, W)``, and the gates, ``(h,)``."""

    name: str
    attention: NDArray[np.float64]
    gates: NDArray[np.float64] | None


@dataclass(frozen=True, kw_only=True)
class _Tiles:
    """Sizes in inches."""

    width: float
    height: float
    pitch: tuple[float, float]
    """From one tile to the next, to the right and down."""
    strip: float
    """Room above each tile for its gate."""


def attention_maps(
    maps: Mapping[int, Tensor],
    *,
    grid: tuple[int, int],
    num_prefix_tokens: Mapping[int, int] | int,
    patch: Patch,
    gates: Mapping[int, Tensor] | None = None,
    heads: Sequence[int] | None = None,
    picture: Image.Image | None = None,
    title: str = "",
) -> Figure:
    """What one query attends to in every head: a row for each layer, a column for each head, one log colour scale.

    A tile is a row of the map, without its prefix tokens, as a picture. The scale ends four decades below the
    largest value, and what is smaller is shown like that.

    Args:
        maps: ``(h, T, T)`` by layer number, from 0: of one picture, or means over many.
        grid: ``(height, width)`` of the patches.
        num_prefix_tokens: P of each layer, or of all.
        patch: ``(row, column)`` of the query, from 0; or ``"class token"``, for the layers that have one.
        gates: the weight of positional attention, ``(h,)`` by layer number, where there is one.
        heads: the numbers of the maps' heads, from 0 [all from 0 on].
        picture: what the model saw.
        title: what is shown.

    Returns:
        The figure; :func:`convit.figures.save` writes it. Layers and heads are numbered from 1 in it.

    Raises:
        InputError: maps, gates or heads that do not fit together, a patch outside the grid, no class token.

    Example:
        >>> import torch
        >>> maps = {0: torch.full((4, 6, 6), 1 / 6), 1: torch.full((4, 7, 7), 1 / 7)}
        >>> figure = attention_maps(maps, grid=(2, 3), num_prefix_tokens={0: 0, 1: 1}, patch=(1, 2))
        >>> len(figure.axes[0].images)
        8
    """
    full = Grid(*grid)
    rows = _rows(maps, full, num_prefix_tokens, patch, gates or {})
    columns = len(rows[0].attention)
    numbers = tuple(range(columns) if heads is None else heads)
    if len(numbers) != columns:
        raise InputError(f"heads: got {len(numbers)} numbers, expected {columns}, one for each head of the maps")
    norm = _norm([row.attention for row in rows])
    tiles = _sizes(full, len(rows), columns, gated=any(row.gates is not None for row in rows))
    left, shown = MARGIN, (0.0, 0.0)
    if picture is not None:
        factor = min(PICTURE[0] / picture.width, PICTURE[1] / picture.height)
        shown = (picture.width * factor, picture.height * factor)
        left += shown[0] + 2 * MARGIN
    width = max(NARROWEST, MARGIN + ROW_NAMES + columns * tiles.pitch[0] + MARGIN)
    figure = Picture(dpi=DPI)
    FigureCanvasAgg(figure)
    said = _wrapped(figure, _legend(full, patch, gates=tiles.strip > 0), 8, width - left - MARGIN)
    named = _wrapped(figure, title, 11, width - left - MARGIN, lines=3)
    bar = MARGIN + len(named) * 0.2 + len(said) * LINE + 0.1
    top = max(MARGIN + shown[1], bar + LINE + 0.42) + 0.12
    height = top + LINE + len(rows) * tiles.pitch[1] + MARGIN
    figure.set_size_inches(width, height)
    axes = _page(figure, width, height)
    if picture is not None:
        _image(axes, np.asarray(picture.convert("RGB")), MARGIN, MARGIN, *shown)
        _box(axes, patch, full, MARGIN, MARGIN, *shown)
    axes.text(left, MARGIN, plain("\n".join(named)), fontsize=11, va="top", linespacing=1.25)
    axes.text(left, MARGIN + len(named) * 0.2, "\n".join(said), fontsize=8, va="top", linespacing=1.25)
    _color_bar(figure, norm, "attention, log scale", left, bar)
    _draw(axes, rows, numbers, tiles, norm, top, patch, full)
    return figure


# -- what is shown -----------------------------------------------------------------------------------------------------


def _rows(
    maps: Mapping[int, Tensor],
    grid: Grid,
    num_prefix_tokens: Mapping[int, int] | int,
    patch: Patch,
    gates: Mapping[int, Tensor],
) -> list[_Row]:
    """The query's row of every map, checked, in the order of the layers."""
    if not maps:
        raise InputError("maps: got none, expected at least one layer's")
    if patch != "class token" and not (0 <= patch[0] < grid.height and 0 <= patch[1] < grid.width):
        raise InputError(f"patch: got {patch}, expected (row, column) within the grid of {grid.height} x {grid.width}")
    rows = []
    heads = next(iter(maps.values())).shape[0]
    for index in sorted(maps):
        prefix = num_prefix_tokens if isinstance(num_prefix_tokens, int) else num_prefix_tokens.get(index, 0)
        tokens = prefix + grid.num_patches
        shape = tuple(maps[index].shape)
        if shape != (heads, tokens, tokens) or heads == 0:
            raise InputError(
                f"maps: got shape {shape} for layer {index}, expected (heads, {tokens}, {tokens}), the same "
                f"heads in each layer, for a grid of {grid.height} x {grid.width} and {prefix} prefix tokens"
            )
        if patch == "class token" and prefix == 0:
            continue
        query = 0 if patch == "class token" else prefix + patch[0] * grid.width + patch[1]
        gate = gates.get(index)
        if gate is not None and gate.shape != (heads,):
            raise InputError(f"gates: got shape {tuple(gate.shape)} for layer {index}, expected {(heads,)}")
        attention = _array(maps[index][:, query, prefix:]).reshape(heads, *grid)
        if not np.isfinite(attention).all():
            raise InputError(f"maps: got values that are no finite numbers in layer {index}, expected attention")
        rows.append(_Row(name=f"layer {index + 1}", attention=attention, gates=None if gate is None else _array(gate)))
    if not rows:
        raise InputError("patch: got 'class token', expected (row, column): none of these layers has a class token")
    return rows


def _array(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.detach().cpu().double().numpy()


def _norm(values: Sequence[NDArray[np.float64]]) -> LogNorm:
    """One colour scale for all tiles."""
    high = max(float(value.max()) for value in values) or 1.0
    low = min(float(value.min()) for value in values)
    return LogNorm(min(max(low, high * 10**-DECADES), high / 10), high, clip=True)


def _legend(grid: Grid, patch: Patch, *, gates: bool) -> str:
    who = (
        "the class token" if patch == "class token" else f"the boxed patch (row {patch[0] + 1}, column {patch[1] + 1})"
    )
    numbers = " Number above a tile: the gate (0: by content, 1: by position)." if gates else ""
    return f"How much {who} attends to each of the {grid.height} x {grid.width} patches.{numbers}"


# -- where it is shown -------------------------------------------------------------------------------------------------


def _sizes(grid: Grid, rows: int, columns: int, *, gated: bool) -> _Tiles:
    """Tiles as large as a page has room for, and not so small that their gates touch."""
    side = min(2.2, max(0.58, min(9.4 / columns, 10.0 / rows))) - GAP
    inch = min(side / grid.width, side / grid.height)
    width, height = inch * grid.width, inch * grid.height
    strip = STRIP if gated else 0.0
    return _Tiles(width=width, height=height, pitch=(side + GAP, max(height + strip + GAP, LINE)), strip=strip)


def _wrapped(figure: Figure, text: str, size: float, width: float, lines: int = 6) -> list[str]:
    """The text, drawable, in lines of ``width`` inches, cut after so many."""
    if not text.strip():
        return []
    text = drawable(text)
    probe = figure.text(0, 0, plain(text), fontsize=size)
    choose_fonts(figure)
    inches = probe.get_window_extent().width / figure.dpi
    probe.remove()
    letters = max(8, int(0.93 * width * len(text) / max(inches, 0.1)))
    return textwrap.wrap(text, letters, max_lines=lines, placeholder=" …")


def _page(figure: Figure, width: float, height: float) -> Axes:
    """Axes over the whole figure, in inches from the top left."""
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_autoscale_on(False)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    return axes


def _image(axes: Axes, values: NDArray[Any], x: float, y: float, width: float, height: float, **colors: Any) -> None:
    axes.imshow(values, extent=(x, x + width, y + height, y), aspect="auto", **colors)
    axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor="#999999", linewidth=0.5))


def _box(axes: Axes, patch: Patch, grid: Grid, x: float, y: float, width: float, height: float) -> None:
    """A red box around the query patch: outside it, so that its own value stays in sight."""
    if patch == "class token":
        return
    cell = (width / grid.width, height / grid.height)
    line = 0.008
    axes.add_patch(
        Rectangle(
            (x + patch[1] * cell[0] - line, y + patch[0] * cell[1] - line),
            cell[0] + 2 * line,
            cell[1] + 2 * line,
            fill=False,
            edgecolor=RED,
            linewidth=2 * line * 72,
            path_effects=[withStroke(linewidth=2 * line * 72 + 1.2, foreground="white")],
        )
    )


def _color_bar(figure: Figure, norm: LogNorm, name: str, x: float, y: float) -> None:
    """The name, the bar below it, and below that its ends and as many whole decades as there is room for."""
    width, height = figure.get_size_inches()
    figure.axes[0].text(x, y, name, fontsize=8, va="top")
    bar = figure.add_axes((x / width, 1 - (y + LINE + 0.14) / height, BAR / width, 0.12 / height))
    figure.colorbar(ScalarMappable(norm, COLORS), cax=bar, orientation="horizontal")
    assert norm.vmin is not None
    assert norm.vmax is not None
    decades = 10.0 ** np.arange(np.floor(np.log10(norm.vmin)), np.ceil(np.log10(norm.vmax)) + 1)
    between = [value for value in decades if 0.3 < norm(value) < 0.84]
    names = [f"{value:.2g}" for value in (norm.vmin, *between, norm.vmax)]
    names[0] = f"≤ {names[0]}" if norm.vmin <= norm.vmax * 10**-DECADES else names[0]
    bar.set_xticks([norm.vmin, *between, norm.vmax], names, fontsize=8)
    texts = bar.get_xticklabels()
    texts[0].set_horizontalalignment("left")
    texts[-1].set_horizontalalignment("right")
    bar.minorticks_off()


def _draw(
    axes: Axes,
    rows: Sequence[_Row],
    heads: Sequence[int],
    tiles: _Tiles,
    norm: LogNorm,
    top: float,
    patch: Patch,
    grid: Grid,
) -> None:
    """The tiles with their names and gates, from ``top`` on."""
    assert norm.vmin is not None
    left = MARGIN + ROW_NAMES
    prefix = "gate " if tiles.pitch[0] > 0.8 else ""
    for column, head in enumerate(heads):
        middle = left + (column + 0.5) * tiles.pitch[0]
        axes.text(middle, top + 0.5 * LINE, f"head {head + 1}", fontsize=7, ha="center", va="center")
    for i, row in enumerate(rows):
        y = top + LINE + i * tiles.pitch[1] + tiles.strip
        axes.text(left - 0.06, y + tiles.height / 2, row.name, fontsize=8, ha="right", va="center")
        for column, attention in enumerate(row.attention):
            middle = left + (column + 0.5) * tiles.pitch[0]
            place = (middle - tiles.width / 2, y, tiles.width, tiles.height)
            _image(axes, np.maximum(attention, norm.vmin), *place, cmap=COLORS, norm=norm)
            _box(axes, patch, grid, *place)
            if row.gates is not None:
                said = f"{prefix}{row.gates[column]:.2f}"
                axes.text(middle, y - 0.5 * STRIP, said, fontsize=7, ha="center", va="center")
