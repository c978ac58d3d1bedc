"""Every plot shows the numbers that it was given, and no text of it is cut or lies on another."""

import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from matplotlib.text import Text
from PIL import Image
from torch import Tensor

from convit.analysis import map_plot, plots
from convit.errors import InputError
from convit.figures import BLUE, ORANGE, save


def texts(figure: Figure) -> Iterator[Text]:
    """What is drawn of text: matplotlib also keeps names of ticks that lie outside their axis."""
    for text in figure.findobj(Text, include_self=False):
        if text.get_visible() and text.get_text().strip():
            yield text


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


def softmaxes(layers: int, heads: int, tokens: int) -> dict[int, Tensor]:
    return {layer: (3 * torch.randn(heads, tokens, tokens)).softmax(-1) for layer in range(layers)}


def tiles(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for image in figure.axes[0].images]


def said(figure: Figure) -> set[str]:
    return {text.get_text() for text in texts(figure)}


# -- maps --------------------------------------------------------------------------------------------------------------


def test_a_tile_is_the_querys_row() -> None:
    """Layer 4 has a class token: its row and column are left out. What is below the scale is shown as its end."""
    maps = {3: softmaxes(1, 2, 7)[0], 1: softmaxes(1, 2, 6)[0]}
    prefix = {1: 0, 3: 1, 9: 1}
    got = plots.attention_maps(maps, grid=(2, 3), num_prefix_tokens=prefix, patch=(1, 0))
    expected = [maps[1][0, 3], maps[1][1, 3], maps[3][0, 4, 1:], maps[3][1, 4, 1:]]
    for tile, attention in zip(tiles(got), expected, strict=True):
        np.testing.assert_allclose(tile, attention.reshape(2, 3), rtol=1e-6)
    assert {"layer 2", "layer 4", "head 1", "head 2", "attention, log scale"} <= said(got)
    norms = {image.norm for image in got.axes[0].images}
    assert len(norms) == 1
    assert norms.pop().vmax == pytest.approx(max(attention.max().item() for attention in expected))


def test_class_token_as_the_query() -> None:
    maps = softmaxes(1, 3, 6) | {1: softmaxes(1, 3, 7)[0]}
    got = plots.attention_maps(maps, grid=(2, 3), num_prefix_tokens={0: 0, 1: 1}, patch="class token", heads=[0, 4, 8])
    for tile, attention in zip(tiles(got), maps[1], strict=True):
        np.testing.assert_allclose(tile, attention[0, 1:].reshape(2, 3), rtol=1e-6)
    assert "layer 1" not in said(got)
    assert {"layer 2", "head 1", "head 5", "head 9"} <= said(got)
    assert not boxes(got)
    assert any("the class token" in text for text in said(got))


def test_log_scale_ends_four_decades_below_the_largest() -> None:
    attention = torch.tensor([[[0.5, 1e-30], [0.0, 0.25]]])
    got = plots.attention_maps({0: attention}, grid=(1, 2), num_prefix_tokens=0, patch=(0, 0))
    np.testing.assert_allclose(tiles(got)[0], [[0.5, 5e-5]])
    assert {"attention, log scale", "≤ 5e-05", "0.5"} <= said(got)
    narrow = plots.attention_maps({0: torch.full((1, 2, 2), 0.5)}, grid=(1, 2), num_prefix_tokens=0, patch=(0, 0))
    assert {"0.05", "0.5"} <= said(narrow)  # one decade at least


def boxes(figure: Figure) -> list[Rectangle]:
    red = to_rgba(map_plot.RED)
    return [p for p in figure.axes[0].patches if isinstance(p, Rectangle) and p.get_edgecolor() == red]


def test_red_box_is_around_the_query_in_picture_and_tiles() -> None:
    picture = Image.new("RGB", (50, 20), (9, 99, 199))
    got = plots.attention_maps(softmaxes(2, 3, 10), grid=(2, 5), num_prefix_tokens=0, patch=(1, 3), picture=picture)
    images = got.axes[0].images
    assert len(images) == len(boxes(got)) == 7
    assert tiles(got)[0].shape == (20, 50, 3)
    for image, box in zip(images, boxes(got), strict=True):
        left, right, bottom, top = image.get_extent()
        assert (right - left) / (bottom - top) == pytest.approx(2.5)  # not distorted
        middle = (box.get_x() + box.get_width() / 2, box.get_y() + box.get_height() / 2)
        assert (middle[0] - left) / (right - left) == pytest.approx(3.5 / 5)
        assert (middle[1] - top) / (bottom - top) == pytest.approx(1.5 / 2)


def test_gates_are_above_their_tiles() -> None:
    gates = {0: torch.tensor([0.123, 0.456])}
    got = plots.attention_maps(softmaxes(2, 2, 4), grid=(2, 2), num_prefix_tokens=0, patch=(0, 0), gates=gates)
    places = {text.get_text(): text.get_position() for text in got.axes[0].texts}
    for name, image in zip(("gate 0.12", "gate 0.46"), got.axes[0].images[:2], strict=True):
        left, right, _, top = image.get_extent()
        assert left < places[name][0] < right
        assert top - 0.2 < places[name][1] < top


@pytest.mark.parametrize(
    ("grid", "layers", "heads", "name"),
    [
        ((1, 1), 1, 1, ""),
        ((4, 4), 1, 1, "$\\frac$ 日本語 " + "x" * 300),
        ((14, 14), 12, 16, "many words " * 60),
        ((3, 20), 3, 24, ""),
        ((20, 3), 6, 4, "digits/0005.png: three (98%)"),
        ((4, 4), 1, 16, "x" * 60),
        ((7, 9), 12, 1, "many words " * 60),
    ],
)
def test_maps_of_any_shape_have_room(grid: tuple[int, int], layers: int, heads: int, name: str, tmp_path: Path) -> None:
    tokens = grid[0] * grid[1]
    gates = {layer: torch.rand(heads) for layer in range(layers)}
    picture = Image.new("RGB", (16 * grid[1], 16 * grid[0])) if name else None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = plots.attention_maps(
            softmaxes(layers, heads, tokens),
            grid=grid,
            num_prefix_tokens=0,
            patch=(grid[0] - 1, 0),
            gates=gates,
            picture=picture,
            title=name,
        )
        save(got, tmp_path / "maps.png")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        check(got)
    assert max(Image.open(tmp_path / "maps.png").size) < 2000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maps": {}}, "maps: got none"),
        (
            {"maps": {0: torch.ones(1, 9, 4, 4)}},
            r"maps: got shape \(1, 9, 4, 4\) for layer 0, expected \(heads, 4, 4\)",
        ),
        ({"maps": {0: torch.ones(1, 4, 4), 1: torch.ones(2, 4, 4)}}, r"maps: got shape \(2, 4, 4\) for layer 1"),
        ({"num_prefix_tokens": 1}, r"expected \(heads, 5, 5\).* and 1 prefix tokens"),
        ({"maps": {0: torch.full((1, 4, 4), torch.nan)}}, "maps: got values that are no finite numbers in layer 0"),
        ({"patch": (2, 0)}, r"patch: got \(2, 0\), expected \(row, column\) within the grid of 2 x 2"),
        ({"patch": (0, -1)}, "patch: got"),
        ({"patch": "class token"}, "patch: got 'class token'.*none of these layers has a class token"),
        ({"gates": {0: torch.ones(3)}}, r"gates: got shape \(3,\) for layer 0, expected \(1,\)"),
        ({"heads": [1, 2]}, "heads: got 2 numbers, expected 1"),
    ],
)
def test_maps_that_do_not_fit(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"maps": softmaxes(1, 1, 4), "grid": (2, 2), "num_prefix_tokens": 0, "patch": (0, 0)}
    with pytest.raises(InputError, match=message):
        plots.attention_maps(**(given | change))


# -- by layer ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layers", "heads"), [(1, 1), (3, 9), (12, 16)])
def test_heads_by_layer(layers: int, heads: int) -> None:
    values = {layer: torch.rand(heads) for layer in range(layers)}
    for got in (plots.gates(values), plots.non_locality(values), plots.non_locality(values, uniform=2.0)):
        check(got)
        (axes,) = got.axes
        *dots, mean = [line for line in axes.lines if line.get_label() != "uniform attention"]
        for layer, line in enumerate(dots):
            np.testing.assert_allclose(line.get_ydata(), values[layer])
            assert np.abs(np.asarray(line.get_xdata()) - (layer + 1)).max() < 0.5
        np.testing.assert_allclose(mean.get_ydata(), [heads.mean() for heads in values.values()])
        np.testing.assert_allclose(mean.get_xdata(), np.arange(layers) + 1)
        low, high = axes.get_ylim()
        assert all(low <= value <= high for line in axes.lines for value in np.asarray(line.get_ydata()))
    assert axes.get_ylabel() == "non-locality (patches)"
    assert np.asarray(axes.lines[-1].get_ydata()).tolist() == [2.0, 2.0]
    assert plots.gates(values).axes[0].get_ylabel() == "gate (0: by content, 1: by position)"


@pytest.mark.parametrize("values", [{}, {0: torch.ones(2, 2)}, {0: torch.ones(0)}, {1: torch.tensor([torch.nan])}])
def test_no_number_for_each_head(values: dict[int, Tensor]) -> None:
    with pytest.raises(InputError, match="gates: got"):
        plots.gates(values)
    with pytest.raises(InputError, match="values: got"):
        plots.non_locality(values)


# -- kernels -----------------------------------------------------------------------------------------------------------


def circles(axes: Axes) -> list[tuple[float, float, float]]:
    return [(*patch.center, patch.radius) for patch in axes.patches if isinstance(patch, Circle)]


def test_kernels_are_circles_around_the_centres() -> None:
    """``a = 2``: sigma = 1/2; ``a = 1/8``: sigma = 2."""
    weight = torch.tensor([[4.0, -6.0, -2.0], [-0.25, 0.0, -0.125]])
    got = plots.kernels({4: weight}, {4: torch.tensor([1.0, 0.0])})
    axes = got.axes[0]
    np.testing.assert_allclose(circles(axes), [(1.0, -1.5, 0.5), (-1.0, 0.0, 2.0)])
    assert axes.get_title() == "layer 5"
    assert axes.get_xlim() == (-3.5, 3.5)  # 1 + 2, and the rest of that cell
    assert axes.get_ylim() == (3.5, -3.5)  # down is down
    strong, weak = [patch.get_edgecolor()[3] for patch in axes.patches if isinstance(patch, Circle)]
    assert strong == 1
    assert 0.1 < weak < 0.3
    query = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert [(*patch.get_xy(), patch.get_width(), patch.get_height()) for patch in query] == [(-0.5, -0.5, 1, 1)]
    assert query[0].get_edgecolor() == to_rgba(ORANGE)
    check(got)


def test_no_head_is_dropped_silently() -> None:
    """Head 2 has no centre, 3 looks to the right and up from afar, 4 is wide."""
    weight = torch.tensor([[2.0, 0, -1], [0, 0, 0.5], [40, -20, -1], [0, 0, -1e-4]])
    got = plots.kernels({0: weight, 1: torch.ones(5, 3), 2: weight[[0, 0]]})
    panels = got.axes
    np.testing.assert_allclose(circles(panels[0]), [(1, 0, 0.5**0.5), (0, 0, 5000**0.5)])
    assert panels[0].get_xlabel() == "no centre: head 2\nwider than this: head 4"
    assert panels[1].get_xlabel() == "no centre: 5 of 5 heads"
    assert panels[2].get_xlabel() == ""
    (arrow,) = panels[0].texts
    tail, tip = np.array(arrow.get_position()), np.array(arrow.xy)
    reach = panels[0].get_xlim()[1]
    assert 0.95 * reach < tip[0] < reach
    np.testing.assert_allclose(tip[1] / tip[0], -0.5)
    assert np.linalg.norm(tail) < np.linalg.norm(tip)
    assert arrow.arrow_patch.get_edgecolor()[:3] == to_rgba(BLUE)[:3]
    assert not panels[2].texts
    assert any("arrow: to a centre farther out" in text for text in said(got))
    check(got)


@pytest.mark.parametrize(("layers", "heads"), [(1, 1), (2, 5), (10, 16), (12, 16)])
def test_panels_of_the_kernels(layers: int, heads: int, tmp_path: Path) -> None:
    weights = {layer: torch.randn(heads, 3) for layer in range(layers)}
    got = plots.kernels(weights, {layer: torch.rand(heads) for layer in range(layers)})
    save(got, tmp_path / "kernels.png")
    check(got)
    assert sum(axes.get_visible() for axes in got.axes) == layers


def test_extent_of_the_kernels() -> None:
    weight = torch.tensor([[2.0, 0.0, -1.0]])
    assert plots.kernels({0: weight}).axes[0].get_xlim()[1] == 2.5
    far = plots.kernels({0: weight, 1: torch.tensor([[20.0, 0.0, -1.0]])})
    assert [axes.get_xlim()[1] for axes in far.axes] == [6.5, 6.5]
    assert [len(axes.texts) for axes in far.axes] == [0, 1]  # an arrow to a centre at 10
    with pytest.raises(InputError, match="pos_weight: got no layer"):
        plots.kernels({})
    with pytest.raises(InputError, match="pos_weight: got shape"):
        plots.kernels({0: torch.ones(2, 2)})
    with pytest.raises(InputError, match=r"gates: got shape \(2,\) for layer 0, expected \(1,\)"):
        plots.kernels({0: weight}, {0: torch.ones(2)})


# -- by epoch ----------------------------------------------------------------------------------------------------------


def history(epochs: int, layers: int = 4, heads: int = 9, apart: float = 1.0) -> list[dict[str, Any]]:
    """Layer by layer farther, and farther by epoch."""
    return [
        {
            "epoch": epoch,
            "gates": [[0.5 + 0.4 * epoch / epochs] * heads] * layers,
            "non_locality": [[apart * layer + epoch / epochs] * heads for layer in range(layers)],
        }
        for epoch in range(1, epochs + 1)
    ]


@pytest.mark.parametrize(
    ("epochs", "layers", "apart"),
    [(1, 1, 1.0), (1, 12, 0.0), (2, 12, 0.7), (20, 12, -0.01), (21, 12, 0.0), (300, 12, 0.7), (300, 24, 0.1)],
)
def test_non_locality_over_training(epochs: int, layers: int, apart: float) -> None:
    got = plots.non_locality_over_training(history(epochs, layers, apart=apart))
    check(got)
    (axes,) = got.axes
    assert len(axes.lines) == layers
    for layer, line in enumerate(axes.lines):
        np.testing.assert_allclose(line.get_ydata(), [apart * layer + (i + 1) / epochs for i in range(epochs)])
        assert axes.texts[layer].get_text() == f"layer {layer + 1}"
        np.testing.assert_allclose(axes.texts[layer].xy, (epochs, apart * layer + 1))
    assert axes.get_xscale() == ("log" if epochs > 20 else "linear")
    assert (
        len({line.get_color() if isinstance(line.get_color(), str) else tuple(line.get_color()) for line in axes.lines})
        == layers
    )


def test_names_of_lines_are_in_the_order_of_the_lines() -> None:
    got = plots.non_locality_over_training(history(5, 6, apart=-0.01))
    heights = [text.get_position()[1] for text in got.axes[0].texts]
    assert heights == sorted(heights, reverse=True)


def test_epochs_without_the_value() -> None:
    lines = history(6)
    for record in lines[:4]:
        del record["non_locality"]
        del record["gates"]
    for got in (plots.non_locality_over_training(lines), plots.gates_over_training(lines)):
        assert np.asarray(got.axes[0].lines[0].get_xdata()).tolist() == [5, 6]
    with pytest.raises(
        InputError, match=r"4 epochs without non_locality, expected some with it; 'convit train' and convit.train"
    ):
        plots.non_locality_over_training(lines[:4])
    with pytest.raises(InputError, match=r"4 epochs without gates.*; only a model with GPSA layers has gates"):
        plots.gates_over_training(lines[:4])


@pytest.mark.parametrize("layers", [1, 3, 10, 12])
def test_gates_over_training(layers: int) -> None:
    got = plots.gates_over_training(history(30, layers, heads=16))
    check(got)
    panels = [axes for axes in got.axes if axes.get_visible()]
    assert [axes.get_title() for axes in panels] == [f"layer {i + 1}" for i in range(layers)]
    assert [len(axes.lines) for axes in panels] == [17] * layers
