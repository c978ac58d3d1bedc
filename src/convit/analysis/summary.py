"""Maps and metrics of every layer, averaged over many images in one pass."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from convit.analysis.attention_layers import gates, position_weights
from convit.analysis.capture import LayerCapture, average
from convit.analysis.metrics import centres, entropy, head_diversity, non_locality, spans
from convit.grid import Grid

DIGITS = 4
"""Of a number in JSON, behind the point."""


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class LayerSummary:
    """One attention layer, averaged over images. h heads, T tokens, prefix tokens first; lengths in patches."""

    index: int
    """The layer's number in the model, from 0."""
    kind: str
    """``"gpsa"`` gated positional, ``"psa"`` ungated positional, ``"sa"`` plain self-attention."""
    grid: Grid
    """The patches' grid."""
    num_prefix_tokens: int
    """Tokens without a position, the class token first."""
    mean_map: Tensor
    """What multiplied the values, ``(h, T, T)`` (the paper's Fig. 15)."""
    non_locality: Tensor
    """Mean distance of each head's attention, ``(h,)`` (equation 8)."""
    entropy: Tensor
    """Entropy of each head's attention, mean over its queries, in nats, ``(h,)``."""
    diversity: float | None
    """Jensen-Shannon divergence between heads, in nats, mean over queries; none for a single head."""
    gates: Tensor | None
    """The weight of positional attention, ``(h,)``; of GPSA only."""
    centres: Tensor | None
    """Attention centre of each head, ``(dx, dy)``, ``(h, 2)``; none in plain attention."""
    spans: Tensor | None
    """Width of each head's positional attention, ``(h,)``; none in plain attention."""

    def to_dict(self) -> dict[str, Any]:
        """The numbers, without the map, as JSON values; what is infinite or not a number becomes None."""
        return {
            "layer": self.index + 1,
            "kind": self.kind,
            "non_locality": listed(self.non_locality, DIGITS),
            "entropy": listed(self.entropy, DIGITS),
            "diversity": None if self.diversity is None else finite(self.diversity, DIGITS),
            "gates": listed(self.gates, DIGITS),
            "centres": listed(self.centres, DIGITS),
            "spans": listed(self.spans, DIGITS),
        }


def summary(model: nn.Module, batches: Iterable[Any]) -> dict[int, LayerSummary]:
    """Maps and metrics of every attention layer, averaged over images: one pass, one layer's maps in memory at a time.

    Args:
        model: the model, of any kind that :func:`convit.analysis.capture` takes.
        batches: such as a DataLoader: images, or tuples that begin with images, of one size.

    Returns:
        A :class:`LayerSummary` for each layer's number, its tensors in fp64 on the CPU.

    Raises:
        InputError: no images, or a model of an unknown kind.

    Example:
        >>> from convit import ConViT
        >>> model = ConViT(img_size=16, patch_size=4, num_classes=5, embed_dim=18, depth=2, num_heads=9,
        ...                local_up_to_layer=1)
        >>> layers = summary(model, [torch.randn(2, 3, 16, 16), torch.randn(1, 3, 16, 16)])
        >>> [(layer.kind, tuple(layer.mean_map.shape)) for layer in layers.values()]
        [('gpsa', (9, 16, 16)), ('sa', (9, 17, 17))]
    """
    seen: dict[int, tuple[str, Grid, int]] = {}

    def measured(layer: LayerCapture) -> Tensor:
        """Everything of one image in one row: the map and, behind it, entropy and diversity, for each head."""
        seen[layer.index] = (layer.kind, layer.grid, layer.num_prefix_tokens)
        own = entropy(layer.mixed).mean(-1)
        alone = len(layer.heads) == 1
        diverse = torch.zeros_like(own) if alone else head_diversity(layer.mixed)[:, None].expand_as(own)
        return torch.cat((layer.mixed.flatten(2).to(own.dtype), own[..., None], diverse[..., None]), dim=-1)

    means = average(measured, model, batches)
    gate, weight = gates(model), position_weights(model)
    layers = {}
    for index, values in means.items():
        kind, grid, prefix = seen[index]
        tokens = prefix + grid.num_patches
        mean_map = values[:, :-2].unflatten(-1, (tokens, tokens))
        positional = weight[index].cpu().double() if index in weight else None
        layers[index] = LayerSummary(
            index=index,
            kind=kind,
            grid=grid,
            num_prefix_tokens=prefix,
            mean_map=mean_map,
            non_locality=non_locality(mean_map, grid, prefix),  # linear in the map: the mean's is the mean
            entropy=values[:, -2],
            diversity=values[0, -1].item() if len(values) > 1 else None,
            gates=gate[index].cpu().double() if index in gate else None,
            centres=None if positional is None else centres(positional),
            spans=None if positional is None else spans(positional),
        )
    return layers


def listed(tensor: Tensor | None, digits: int | None = None) -> list[Any] | None:
    """Nested lists of numbers, as JSON has them (:func:`finite`)."""
    if tensor is None:
        return None
    if tensor.ndim > 1:
        return [listed(row, digits) for row in tensor]
    return [finite(value, digits) for value in tensor.tolist()]


def finite(value: float, digits: int | None = None) -> float | None:
    """The number, with so many digits behind the point, or all; None if it is infinite or not a number."""
    if not math.isfinite(value):
        return None
    return value if digits is None else round(value, digits)
