"""What the page of an inspection must show, from Python's side, and what it does show."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from convit.analysis import Inspection, LayerCapture
from convit.grid import Grid
from convit.prediction import Prediction
from tests.helpers import noise

BRIGHTEST = [253, 231, 37]
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


def base_sized() -> Inspection:
    """A picture as a base model would see it, with maps as uneven as a trained model's."""
    grid, depth = Grid(14, 14), 12
    return Inspection(
        name="base.png",
        picture=noise(48, 48).resize((224, 224)),
        predictions=tuple(Prediction(f"class {i}", 0.5**i) for i in range(1, 6)),
        layers=tuple(_layer(index, 16, grid, gated=index < depth - 2) for index in range(depth)),
        patch_size=16,
        relevance=torch.rand(grid),
        masking=(),
    )


def _layer(index: int, heads: int, grid: Grid, gated: bool) -> LayerCapture:
    prefix = 0 if gated else 1
    tokens = grid.num_patches + prefix
    weight = torch.randn(heads, 3) - torch.tensor([0.0, 0.0, 1.0])
    maps = torch.softmax(2 * torch.randn(1, heads, tokens, tokens), -1)
    return LayerCapture(
        index=index,
        kind="gpsa" if gated else "sa",
        heads=tuple(range(heads)),
        grid=grid,
        num_prefix_tokens=prefix,
        mixed=maps,
        content=maps if gated else None,
        positional=None,
        gates=torch.rand(heads) if gated else None,
        pos_weight=weight if gated else None,
        hidden=torch.zeros(1, tokens, 1),
    )


def expected(layer: LayerCapture, head: int, kind: str, query: int) -> Tensor | None:
    """What the page must show, ``(T,)`` in fp64, ``head`` counted among those captured; see :func:`tolerance`."""
    prefix = layer.num_prefix_tokens
    if query < -prefix or (kind == "position" and (layer.positional is None or query < 0)):
        return None
    row = -1 - query if query < 0 else prefix + query
    if kind == "position":
        return torch.nn.functional.pad(layer.positional[head, query].double(), (prefix, 0))  # type: ignore[index]
    whole = layer.content if kind == "content" and layer.content is not None else layer.mixed
    return whole[0, head, row].double()


def tolerance(layer: LayerCapture, head: int, kind: str, query: int) -> Tensor:
    """How far the page may be off: 2% of the content's part and 5e-5 of its greatest weight; 1e-6 for position."""
    prefix = layer.num_prefix_tokens
    if kind == "position":
        return torch.tensor(1e-6, dtype=torch.float64)
    whole = layer.mixed if layer.content is None else layer.content
    content = whole[0, head, -1 - query if query < 0 else prefix + query].double()
    return 0.02 * content + 5e-5 * content.max() + 1e-6


def shown(tab: Any, layer: LayerCapture, head: int, kind: str, query: int) -> Tensor | None:
    """What the page shows."""
    code = "([l, h, k, q]) => { const row = window.convit.row(l, h, k, q); return row && [...row]; }"
    row = tab.evaluate(code, [layer.index, layer.heads[head], kind, query])
    return None if row is None else torch.tensor(row, dtype=torch.float64)


def assert_shows(tab: Any, seen: Inspection, query: int) -> None:
    """Every head, of every kind, from this query."""
    for layer in seen.layers:
        for head in range(len(layer.heads)):
            for kind in ("content", "position", "mix"):
                want, got = expected(layer, head, kind, query), shown(tab, layer, head, kind, query)
                assert (want is None) == (got is None), (layer.index, head, kind)
                if want is not None and got is not None:
                    assert ((got - want).abs() <= tolerance(layer, head, kind, query)).all(), (layer.index, head, kind)


def pixels(tab: Any, tile: int) -> np.ndarray:
    """The colours of a tile, ``(H, W, 3)``, by its number on the page; -1 is what lies on the picture."""
    code = """(number) => {
        const canvas = document.querySelectorAll("#overlay, .map canvas")[number], { width, height } = canvas;
        const copy = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
        copy.drawImage(canvas, 0, 0);
        return [height, width, ...copy.getImageData(0, 0, width, height).data];
    }"""
    height, width, *values = tab.evaluate(code, tile + 1)
    return np.array(values).reshape(height, width, 4)[..., :3]


def brightest(tab: Any, tile: int) -> list[int]:
    """The patches that a tile shows in its brightest colour."""
    return np.flatnonzero((pixels(tab, tile).reshape(-1, 3) == BRIGHTEST).all(-1)).tolist()


def patch_centre(tab: Any, grid: Grid, patch: int, selector: str = "#picture") -> tuple[float, float]:
    """Where on the screen a patch's middle is."""
    box = tab.locator(selector).first.bounding_box()
    row, column = divmod(patch, grid.width)
    return (box["x"] + (column + 0.5) / grid.width * box["width"], box["y"] + (row + 0.5) / grid.height * box["height"])


def frame(tab: Any) -> None:
    """Waits until what was asked for is drawn."""
    tab.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def until_named(tab: Any, name: str) -> None:
    """Waits until the picture of this name is shown. Not with ``wait_for_function``: the page's policy forbids eval."""
    code = """(name) => new Promise((done) => {
        const look = () => document.getElementById("name").textContent === name ? done() : requestAnimationFrame(look);
        look();
    })"""
    tab.evaluate(code, name)


def pressed(tab: Any, group: str) -> str:
    """The button of a group that is pressed."""
    return tab.locator(f'#{group} [aria-pressed="true"]').inner_text()
