"""The paper's figures, in percent of ImageNet-1k's validation images (arXiv 2103.10697, v2)."""

from typing import NamedTuple


class OfModel(NamedTuple):
    """A row of Table 1."""

    convit: float
    twin: float | None
    """DeiT of the same width and number of heads; None where the paper's has another."""


TABLE_1 = {
    "tiny": OfModel(73.1, None),
    "tiny_plus": OfModel(76.7, 75.9),
    "small": OfModel(81.3, None),
    "small_plus": OfModel(82.2, 79.0),
    "base": OfModel(82.4, None),
    "base_plus": OfModel(82.5, 77.5),
}
"""Top-1 by size."""

TABLE_2 = {
    0.05: (47.8, 34.8),
    0.1: (59.6, 48.0),
    0.3: (73.7, 66.1),
    0.5: (78.2, 74.6),
    1.0: (81.4, 79.9),
}
"""Top-1 of ConViT-S and DeiT-S (6 heads, width 384) by the part of each class that is kept."""

TABLE_3 = {
    "a": {1.0: 82.2, 0.1: 59.7},
    "b": {1.0: 82.0, 0.1: 57.4},
    "c": {1.0: 81.4, 0.1: 56.9},
    "d": {1.0: 81.6, 0.1: 54.6},
    "e": {1.0: 79.1, 0.1: 47.8},
    "f": {1.0: 78.6, 0.1: 54.3},
    "g": {1.0: 73.7, 0.1: 44.8},
}
"""Top-1 of S+ by row and part of the data."""

TABLE_4 = {"small_plus": (82.2, 82.9)}
"""Top-1 of ConViT without and with hard distillation from a RegNet-16GF, by size; its DeiTs are of other shapes."""

TABLE_5 = {"convit": (73.1, 67.1), "twin": (72.2, 38.3)}
"""Top-1 of Ti with and without the absolute position embedding. The paper's DeiT-Ti has 3 heads."""

TABLE_6 = {"content": {3: 62.3, 5: 35.0, 10: 1.3}, "position": {3: 63.5, 5: 53.1, 10: 46.8}}
"""Top-1 of ConViT-Ti with one kind of attention masked in so many first layers; 73.1 with none."""
