"""The texts of a figure, and whether they have room."""

import itertools
from collections.abc import Iterator

from matplotlib.figure import Figure
from matplotlib.text import Text


def texts(figure: Figure) -> Iterator[Text]:
    """What is drawn of text: matplotlib also keeps names of ticks that lie outside their axis."""
    for text in figure.findobj(Text, include_self=False):
        if text.get_visible() and text.get_text().strip():
            yield text


def said(figure: Figure) -> set[str]:
    return {text.get_text() for text in texts(figure)}


def ticks_out_of_sight(figure: Figure) -> set[Text]:
    hidden = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            shown = axes.get_visible() and axes.axison
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not shown or not low <= tick.get_loc() <= high:
                    hidden |= {tick.label1, tick.label2}
    return hidden


def check(figure: Figure) -> None:
    """No text is cut by the border, and none lies on another."""
    figure.draw_without_rendering()
    hidden = ticks_out_of_sight(figure)
    width, height = figure.bbox.size
    # Not an annotation's own extent, which takes in its arrow.
    found = [(text.get_text(), Text.get_window_extent(text)) for text in texts(figure) if text not in hidden]
    for said, box in found:
        assert box.x0 > -1, said
        assert box.y0 > -1, said
        assert box.x1 < width + 1, said
        assert box.y1 < height + 1, said
    for (said, box), (other, behind) in itertools.combinations(found, 2):
        across = min(box.x1, behind.x1) - max(box.x0, behind.x0)
        along = min(box.y1, behind.y1) - max(box.y0, behind.y0)
        assert min(across, along) < 1, (said, other)
