"""The equations as the paper writes them, with every ``N x N`` map in memory.

They are the reference in the tests of the fast forms, and they run when a map is needed, to show it or to drop entries
of it. Shapes: B batch, h heads, P prefix tokens, N patches, d head width.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from convit.grid import Grid


def unchanged(tensor: Tensor) -> Tensor:
    """What a map passes through where nobody asks for it."""
    return tensor


class Through(NamedTuple):
    """What the maps of a layer pass through on their way: functions or modules of a map, such as a dropout, or one that
    keeps it. What they return is what the layer goes on with."""

    content: Callable[[Tensor], Tensor] = unchanged
    positional: Callable[[Tensor], Tensor] = unchanged
    mixed: Callable[[Tensor], Tensor] = unchanged


FREE = Through()
"""Nobody asks for a map."""


class Maps(NamedTuple):
    """Attention maps of one layer, rows are queries, columns are keys, prefix tokens first."""

    content: Tensor
    """``softmax(q k^T / sqrt(d))``, ``(B, h, P + N, P + N)``."""
    positional: Tensor
    """``softmax(v_pos . r)`` among patches, ``(h, N, N)``: the same for every image."""
    mixed: Tensor
    """What multiplies the values, ``(B, h, P + N, P + N)``."""


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type in which positional logits and gates are computed: at least fp32.

    Squared distances reach thousands; bf16 keeps 8 bits of them, too few to distinguish neighbours.
    """
    return torch.float64 if dtype == torch.float64 else torch.float32


def content_map(q: Tensor, k: Tensor, scale: float | None = None) -> Tensor:
    """``softmax(q k^T / sqrt(d))``, ``(B, h, P + N, P + N)``; another ``scale`` in place of ``1 / sqrt(d)``."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return torch.softmax((q * scale) @ k.transpose(-2, -1), dim=-1, dtype=compute_dtype(q.dtype))


def positional_logits(pos_weight: Tensor, grid: Grid, dtype: torch.dtype) -> Tensor:
    """``v_pos . r_ij = w0 dx + w1 dy + w2 (dx^2 + dy^2)`` for every head: ``(h, N, N)``."""
    dx, dy, squared = grid.relative_positions(device=pos_weight.device, dtype=dtype).unbind(-1)
    w0, w1, w2 = pos_weight.to(dtype)[:, :, None, None].unbind(1)
    return w0 * dx + w1 * dy + w2 * squared  # no matrix product: autocast would compute one in bf16


def positional_map(pos_weight: Tensor, grid: Grid, dtype: torch.dtype) -> Tensor:
    """``softmax(v_pos . r)`` among patches, ``(h, N, N)``."""
    return torch.softmax(positional_logits(pos_weight, grid, dtype), dim=-1)


def gates(gating_param: Tensor) -> Tensor:
    """The weight of positional attention in each head, ``sigmoid(l)``, in at least fp32: ``(h,)``."""
    return torch.sigmoid(gating_param.to(compute_dtype(gating_param.dtype)))


def gated_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gate: Tensor,
    pos_weight: Tensor,
    grid: Grid,
    num_prefix_tokens: int = 0,
    through: Through = FREE,
) -> tuple[Tensor, Maps]:
    """Gated positional attention, equations 6 and 7 of the paper; see :func:`convit.ops.gated_attention`.

    Returns:
        The output ``(B, h, P + N, d)`` and the :class:`Maps` that gave it.
    """
    dtype = compute_dtype(q.dtype)
    content = through.content(content_map(q, k))
    positional = through.positional(positional_map(pos_weight, grid, dtype))
    weight = torch.sigmoid(gate.to(dtype))[:, None, None]
    p = num_prefix_tokens
    # A token without a position has no positional attention: as a query it attends by content alone, as a key it
    # gets none of the positional weight.
    mixed = (1 - F.pad(weight.expand(-1, grid.num_patches, 1), (0, 0, p, 0))) * content
    mixed = through.mixed(mixed + F.pad(weight * positional, (p, 0, p, 0)))
    return mixed.to(v.dtype) @ v, Maps(content, positional, mixed)


def positional_attention(
    q: Tensor, k: Tensor, v: Tensor, pos_weight: Tensor, grid: Grid, num_prefix_tokens: int = 0, through: Through = FREE
) -> tuple[Tensor, Tensor]:
    """Ungated positional attention, equations 3 and 4 of the paper; see :func:`convit.ops.positional_attention`.

    Returns:
        The output ``(B, h, P + N, d)`` and the attention ``(B, h, P + N, P + N)``.
    """
    dtype = compute_dtype(q.dtype)
    p = num_prefix_tokens
    logits = ((q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5).to(dtype)
    logits = logits + F.pad(positional_logits(pos_weight, grid, dtype), (p, 0, p, 0))
    attention = through.mixed(torch.softmax(logits, dim=-1))
    return attention.to(v.dtype) @ v, attention


def self_attention(q: Tensor, k: Tensor, v: Tensor, through: Through = FREE) -> tuple[Tensor, Tensor]:
    """Plain scaled dot-product attention, ``softmax(q k^T / sqrt(d)) v``, with its map ``(B, h, N, N)``."""
    attention = through.mixed(content_map(q, k))
    return attention.to(v.dtype) @ v, attention
