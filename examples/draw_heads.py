"""Draws where every head of a run looks by position, at the start and after training.

python examples/draw_heads.py RUN PICTURE.png
"""

import sys

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import convit
from convit.grid import Grid
from convit.ops.naive import positional_logits

GRID = Grid(7, 7)


def seen_from_the_middle(pos_weight: Tensor) -> Tensor:
    """Positional attention of the middle patch of a 7 x 7 grid, ``(heads, 7, 7)``."""
    attention = positional_logits(pos_weight.detach(), GRID, torch.float64).softmax(dim=-1)
    return attention[:, GRID.num_patches // 2].unflatten(-1, GRID)


def draw(axes: Axes, attention: Tensor, title: str) -> None:
    """One head: darker is more attention; the box is the patch that looks."""
    axes.imshow(attention, cmap="Blues", vmin=0, vmax=1)
    axes.plot(GRID.width // 2, GRID.height // 2, "s", markersize=11, markerfacecolor="none", markeredgecolor="#d55e00")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=8)


def main() -> None:
    """A row for the start, and one for each GPSA layer."""
    if len(sys.argv) != 3:
        sys.exit(f"usage: python {sys.argv[0]} RUN PICTURE.png")
    classifier = convit.load(sys.argv[1])
    fresh = convit.create_model(classifier.model_name, **classifier.model_args)
    trained = [block.attn for block in classifier.model.blocks if isinstance(block.attn, convit.GPSA)]
    rows = [("start", fresh.blocks[0].attn), *((f"layer {i}", layer) for i, layer in enumerate(trained, start=1))]
    heads = fresh.blocks[0].attn.num_heads
    figure = Figure(figsize=(1.05 * heads + 0.5, 1.25 * len(rows) + 0.5), dpi=130, layout="constrained")
    panels = figure.subplots(len(rows), heads, squeeze=False)
    for panel, (name, layer) in zip(panels, rows, strict=True):
        maps = seen_from_the_middle(layer.pos_proj.weight)
        for axes, attention, gate in zip(panel, maps, layer.gates.tolist(), strict=True):
            draw(axes, attention, f"gate {gate:.2f}")
        panel[0].set_ylabel(name, fontsize=10)
    figure.suptitle("Where each head looks by position, seen from the boxed patch", fontsize=11)
    figure.savefig(sys.argv[2])


if __name__ == "__main__":
    main()
