"""Every plot shows the numbers that it was given, and no text of it is cut or lies on another."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.patches import Circle, Rectangle
from torch import Tensor

from convit.analysis import plots
from convit.errors import InputError
from convit.figures import BLUE, ORANGE, save
from tests.analysis.figures import check, said

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
