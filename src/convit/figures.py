"""Shared by the plots of training and of analysis: figures without global state, labels, fonts, colours, saving."""

import functools
import io
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import ft2font
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager, get_font
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from convit.errors import InputError
from convit.files import printable, replacing

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#666666"  # tell apart also without colour vision (Okabe and Ito)
DPI = 130

History = Sequence[Mapping[str, Any]]
"""A run's epochs: the lines of its ``metrics.jsonl``."""


class Picture(Figure):
    """A figure that a notebook shows by itself, without pyplot and its global state."""

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        choose_fonts(self)
        self.savefig(stream, format="png")
        return stream.getvalue()


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, share: bool = False
) -> tuple[Picture, list[Axes]]:
    """A figure that no window system and no global state knows of, and its axes row by row. Sizes are in inches."""
    figure = Picture(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share).flat)


def label(axes: Axes, title: str, x: str, y: str, grid: bool = True) -> None:
    """Title and names of the axes, as they are written; a light frame."""
    axes.set_title(plain(title), fontsize=10)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if grid:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)


def legend_below(axes: Axes) -> None:
    """Names of the lines below the axes, where they cover none of them."""
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=3, fontsize=9, columnspacing=1.4)


def plain(text: str) -> str:
    r"""A text with names from users, as a picture can show it.

    A dollar sign is no formula; otherwise as :func:`drawable`.

    >>> print(plain("a$b$"))
    a\$b\$
    """
    return drawable(text).replace("$", r"\$")


def drawable(text: str) -> str:
    r"""A text of letters that a font has; a control character is its escape, and so is a letter that no installed font
    has: better than a box, which is the same for all of them.

    >>> print(drawable("\x1b[31m and \U000F0000"))
    \x1b[31m and \U000f0000
    """
    lines = "\n".join(map(printable, text.split("\n")))
    return "".join(c if c == "\n" or font_of(c) else ascii(c)[1:-1] for c in lines)


def lacking(names: Iterable[str]) -> str | None:
    """A line for letters of names that pictures cannot show as they are; None if they can show all.

    Args:
        names: such as those of the classes.
    """
    letters = dict.fromkeys(c for name in names for c in name if c.isprintable())
    unknown = [c for c in letters if not font_of(c)]
    if unknown:
        some = ", ".join(unknown[:3]) + (f" and {len(unknown) - 3} more" if len(unknown) > 3 else "")
        return (
            f"no font of this machine has the letters {some}: pictures (.png) show them as {ascii(unknown[0])[1:-1]}; "
            "with a font such as Noto Sans CJK (fonts-noto-cjk) they show them, and pages (.html) show any"
        )
    if not hasattr(ft2font, "__libraqm_version__") and any(unicodedata.bidirectional(c) in _JOINED for c in letters):
        return "matplotlib before 3.11 sets Arabic and Hebrew letters singly from left to right: pictures (.png) do so"
    return None


_JOINED = ("R", "AL")
"""Directions of letters that are written from right to left."""
_SYMBOLS = ("Last Resort", "cm", "STIXNonUnicode", "STIXSize")
"""Families whose glyphs are not the letters, or are boxes with the letters' numbers."""


@functools.cache
def font_of(letter: str) -> str | None:
    """The family of a font that has the letter: matplotlib's own if it has it, else one of the machine's, else None."""
    usual = FontProperties()
    if get_font(fontManager.findfont(usual)).get_char_index(ord(letter)):
        return usual.get_name()
    for file, family, blocks in _installed():
        if ord(letter) >> 8 in blocks and get_font(file).get_char_index(ord(letter)):
            return family
    return None


@functools.cache
def _installed() -> tuple[tuple[str, str, frozenset[int]], ...]:
    """File and family of every installed font, and the blocks of 256 letters that it is of.

    The file is the one that matplotlib takes for the family: another of the same name may have more letters.
    """
    found = []
    for family in sorted({entry.name for entry in fontManager.ttflist if not entry.name.startswith(_SYMBOLS)}):
        try:
            file = fontManager.findfont(FontProperties(family=[family]), fallback_to_default=False)
            blocks = frozenset(code >> 8 for code in FT2Font(file).get_charmap())
        except (OSError, RuntimeError, ValueError):  # removed since matplotlib listed it, or of pixels
            continue
        found.append((str(file), family, blocks))
    return tuple(found)


def choose_fonts(figure: Figure) -> None:
    """Gives every text of a figure the fonts that its letters need, after the usual one."""
    for axes in figure.axes:
        axes.get_xticklabels(), axes.get_yticklabels()  # which sets their texts
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        needed = dict.fromkeys(filter(None, map(font_of, text.get_text())))
        if len(needed) > 1 or FontProperties().get_name() not in needed:
            text.set_fontfamily([FontProperties().get_name(), *needed])


def marker(points: Sequence[object]) -> str | None:
    """A line of one point shows nothing without a marker."""
    return "o" if len(points) == 1 else None


def save(figure: Figure, path: str | Path) -> None:
    """Writes the picture whole or not at all, in the format that the path's suffix names."""
    path = Path(path)
    choose_fonts(figure)
    with replacing(path) as stream:
        figure.savefig(stream, format=path.suffix.removeprefix(".") or "png")


def by_epoch(history: History, key: str, otherwise: str) -> tuple[list[int], NDArray[np.float64]]:
    """A value of every head by epoch: the epochs that have it, and ``(epochs, layers, heads)``.

    Args:
        history: a run's epochs.
        key: what the value is called in them.
        otherwise: what to do if no epoch has it, for the message.

    Raises:
        InputError: no epoch has it, or not as many layers and heads in each.

    Example:
        >>> history = [{"epoch": 1}, {"epoch": 2, "gates": [[0.5, 0.25]]}]
        >>> by_epoch(history, "gates", "")
        ([2], array([[[0.5 , 0.25]]]))
    """
    there = [record for record in history if record.get(key)]
    if not there:
        raise InputError(f"history: got {len(history)} epochs without {key}, expected some with it; {otherwise}")
    try:
        epochs = [int(record["epoch"]) for record in there]
        values = np.array([record[key] for record in there], dtype=np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"history: got epochs whose {key} do not fit together ({error}), expected one run's"
        ) from error
    if values.ndim != 3:
        raise InputError(f"history: got {key} of shape {values.shape[1:]} in each epoch, expected (layers, heads)")
    return epochs, values


def gates_over_training(history: History) -> Figure:
    """The gate of every head by epoch, a panel for each GPSA layer (the paper's figures 6 and 14).

    Args:
        history: a run's epochs; those without ``gates`` are left out.

    Raises:
        InputError: no epoch has gates.
    """
    epochs, values = by_epoch(history, "gates", "only a model with GPSA layers has gates")
    layers = values.shape[1]
    columns = min(5, layers)
    rows = -(-layers // columns)
    figure, panels = new_figure(max(5.0, 2.1 * columns + 0.6), 1.9 * rows + 0.9, rows=rows, columns=columns, share=True)
    for layer, axes in enumerate(panels):
        axes.set_visible(layer < layers)
        if layer >= layers:
            continue
        axes.plot(epochs, values[:, layer], color=BLUE, alpha=0.5, linewidth=1, marker=marker(epochs))
        axes.plot(epochs, values[:, layer].mean(axis=1), color=ORANGE, linewidth=1.5, marker=marker(epochs))
        label(axes, f"layer {layer + 1}", "", "")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    figure.suptitle("Gate of every head (blue), mean of the layer (orange)\n0: by content, 1: by position", fontsize=10)
    figure.supxlabel("epoch", fontsize=10)
    figure.supylabel("gate", fontsize=10)
    return figure
