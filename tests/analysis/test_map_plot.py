"""The picture of attention maps shows the numbers that it was given, and no text of it is cut or lies on another."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

from convit.analysis import map_plot, plots
from convit.errors import InputError
from convit.figures import save
from tests.analysis.figures import check, said


def softmaxes(layers: int, heads: int, tokens: int) -> dict[int, Tensor]:
    return {layer: (3 * torch.randn(heads, tokens, tokens)).softmax(-1) for layer in range(layers)}


def tiles(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for image in figure.axes[0].images]


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
