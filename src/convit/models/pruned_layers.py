"""GPSA layers some of whose heads have one path only; :func:`convit.prune_gates` makes them out of whole ones.

As in :mod:`convit.models.speed_up` only the class of a layer changes. Parameters stay the objects they are and no part
of them is kept as a copy, so whatever the pruned form cannot do, the layer's own form does: training, gradients of its
parameters, gates that have changed.

Shapes: B batch, P prefix tokens, N patches, T = P + N tokens, h heads, C width, d = C / h head width.
"""

import math
from itertools import groupby
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from timm.models.convit import GPSA as TimmGPSA
from torch import Tensor, nn

from convit.grid import Grid
from convit.layers import GatedPositionalSelfAttention
from convit.layers.attention import split_heads
from convit.models.speed_up import FastGPSA, _drops_attention, _is_plain, _left_out
from convit.ops.factorized import attend_by_position
from convit.ops.naive import compute_dtype


class HeadPlan(NamedTuple):
    """Which heads of a layer skip what, and the gates that this was read from."""

    logits: tuple[float, ...]
    dtype: torch.dtype
    shut: tuple[int, ...]
    open: tuple[int, ...]
    by_content: tuple[int, ...]
    """The heads that are not open."""
    by_position: tuple[int, ...]
    """The heads that are not shut."""
    runs: tuple[tuple[str, int], ...]
    """All heads in their order, neighbours of a kind together: ``"shut"``, ``"open"`` or ``"both"`` and how many."""


class _Pruned:
    """What both pruned layers share: they notice when the gates may have changed."""

    head_plan: HeadPlan
    plan_holds: bool
    """Whether the gates were those of the plan when the mode, a state or the type was last set: for compiled code."""

    def train(self: Any, mode: bool = True) -> Any:
        super().train(mode)  # type: ignore[misc]
        self.plan_holds = _same_gates(self)
        return self

    def _load_from_state_dict(self: Any, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)  # type: ignore[misc]
        self.plan_holds = _same_gates(self)

    def _apply(self: Any, *args: Any, **kwargs: Any) -> Any:
        super()._apply(*args, **kwargs)  # type: ignore[misc]
        self.plan_holds = _same_gates(self)
        return self


class PrunedGPSA(_Pruned, GatedPositionalSelfAttention):
    """:class:`convit.GPSA` with decided heads. Made by :func:`prune_gates` out of an existing one."""

    restores_to = unpruned = GatedPositionalSelfAttention

    def forward(self, x: Tensor, grid: tuple[int, int] | None = None, num_prefix_tokens: int = 0) -> Tensor:
        """``(B, P + N, C)`` to the same shape, as :class:`convit.GPSA` does."""
        # An attend on the object replaces ours, and takes every head's queries and keys.
        if not _plan_counts(self) or "attend" in vars(self) or not 0 <= num_prefix_tokens < x.shape[1]:
            return super().forward(x, grid, num_prefix_tokens)
        full = Grid.of(x.shape[1] - num_prefix_tokens, grid)
        return self.proj_drop(self.proj(attend_in_groups(self, x, full, num_prefix_tokens)))


class PrunedFastGPSA(_Pruned, FastGPSA):
    """timm's GPSA, fast and with decided heads. Made by :func:`prune_gates` out of a fast one."""

    restores_to = TimmGPSA
    unpruned = FastGPSA

    def forward(self, x: Tensor) -> Tensor:
        """``(B, N, C)`` to ``(B, N, C)``, as timm's GPSA does."""
        if not _plan_counts(self) or _left_out(self) is not None:
            return super().forward(x)
        side = math.isqrt(x.shape[1])
        return self.proj_drop(self.proj(attend_in_groups(self, x, Grid.of(x.shape[1], (side, side)), 0)))


PRUNED: dict[type[nn.Module], type[nn.Module]] = {GatedPositionalSelfAttention: PrunedGPSA, FastGPSA: PrunedFastGPSA}
"""What becomes of each class."""


def attend_in_groups(layer: Any, x: Tensor, grid: Grid, num_prefix_tokens: int) -> Tensor:
    """Gated attention in which heads follow the layer's plan.

    Args:
        layer: a pruned one.
        x: ``(B, P + N, C)``.
        grid: of the N patches.
        num_prefix_tokens: P.

    Returns:
        What ``layer.proj`` takes, ``(B, P + N, C)``.
    """
    plan, heads, p = layer.head_plan, layer.num_heads, num_prefix_tokens
    v = split_heads(layer.v(x), 1, heads)[0]
    content = positional = v[:, :0]
    if plan.by_content or p > 0:
        q, k = _queries_and_keys(layer, x, plan.by_content if p == 0 else tuple(range(heads)))
        if p > 0:  # prefix tokens attend by content in every head
            prefix = F.scaled_dot_product_attention(q[:, :, :p], k, v)
            q, k = _pick(q[:, :, p:], plan.by_content), _pick(k, plan.by_content)
        if plan.by_content:
            content = F.scaled_dot_product_attention(q, k, _pick(v, plan.by_content))
    if plan.by_position:
        pos_weight = _pick(layer.pos_proj.weight, plan.by_position, dim=0)
        positional = attend_by_position(_pick(v[:, :, p:], plan.by_position), pos_weight, grid)
    gates = torch.sigmoid(layer.gating_param.to(compute_dtype(v.dtype))).to(v.dtype)
    out = _in_order(content, positional, gates, plan.runs)
    return torch.cat((prefix.transpose(1, 2).flatten(2), out), dim=1) if p > 0 else out


def _queries_and_keys(layer: Any, x: Tensor, heads: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Of these heads alone, ``(B, ., T, d)`` each. The weight's rows are taken anew each time: no copy grows old."""
    qk = layer.qk
    if len(heads) == layer.num_heads or not _is_plain(qk, nn.Linear):
        q, k = split_heads(qk(x), 2, layer.num_heads).unbind(0)
        return _pick(q, heads), _pick(k, heads)
    weight = _pick(qk.weight.unflatten(0, (2, layer.num_heads, -1)), heads).flatten(0, 2)
    bias = None if qk.bias is None else _pick(qk.bias.unflatten(0, (2, layer.num_heads, -1)), heads).flatten()
    q, k = split_heads(F.linear(x, weight, bias), 2, len(heads)).unbind(0)
    return q, k


def _in_order(content: Tensor, positional: Tensor, gates: Tensor, runs: tuple[tuple[str, int], ...]) -> Tensor:
    """Both paths' heads, ``(B, ., N, d)``, put together and mixed where a head has both: ``(B, N, C)``."""
    head = with_content = with_position = 0
    parts: list[Tensor] = []
    for kind, count in runs:  # views of neighbours; the copy at the end is the one that the whole form makes too
        if kind == "shut":
            part = content.narrow(1, with_content, count)
        elif kind == "open":
            part = positional.narrow(1, with_position, count)
        else:
            gate = gates[head : head + count, None, None]
            ours, theirs = content.narrow(1, with_content, count), positional.narrow(1, with_position, count)
            part = torch.lerp(ours, theirs, gate)
        parts.append(part.transpose(1, 2))
        head += count
        with_content += count * (kind != "open")
        with_position += count * (kind != "shut")
    return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)).flatten(2)


def _pick(x: Tensor, heads: tuple[int, ...], dim: int = 1) -> Tensor:
    """Some heads in their order; a view where they are neighbours."""
    if not heads:
        return x.narrow(dim, 0, 0)
    starts = [head for head in heads if head - 1 not in heads]
    ends = [head + 1 for head in heads if head + 1 not in heads]
    parts = [x.narrow(dim, start, end - start) for start, end in zip(starts, ends, strict=True)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


# -- the plan ----------------------------------------------------------------------------------------------------------


def plan_of(layer: Any, tolerance: float) -> HeadPlan:
    """Which heads have decided. In Python's fp64, and 1 - g as sigmoid(-l): in fp32 it would be 0 too soon."""
    logits = tuple(layer.gating_param.tolist())
    bound = max(tolerance, torch.finfo(layer.gating_param.dtype).eps / 4)
    kinds = ["shut" if _sigmoid(x) <= bound else "open" if _sigmoid(-x) <= bound else "both" for x in logits]

    def those(*wanted: str) -> tuple[int, ...]:
        return tuple(head for head, kind in enumerate(kinds) if kind in wanted)

    return HeadPlan(
        logits=logits,
        dtype=layer.gating_param.dtype,
        shut=those("shut"),
        open=those("open"),
        by_content=those("shut", "both"),
        by_position=those("open", "both"),
        runs=tuple((kind, len(list(run))) for kind, run in groupby(kinds)),
    )


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0  # below, exp overflows


def _plan_counts(layer: Any) -> bool:
    """Whether the pruned form gives all that is wanted now; the layer's own form gives the rest."""
    if layer.training or _drops_attention(layer):
        return False
    if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in layer.parameters()):
        return False
    if torch.compiler.is_compiling() or (layer.gating_param.is_cuda and torch.cuda.is_current_stream_capturing()):
        return layer.plan_holds  # numbers on the device are out of reach
    return _same_gates(layer)


def _same_gates(layer: Any) -> bool:
    gates, plan = layer.gating_param, layer.head_plan
    return not gates.is_meta and gates.dtype == plan.dtype and tuple(gates.tolist()) == plan.logits
