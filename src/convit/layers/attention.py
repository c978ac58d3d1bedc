"""The paper's three attention layers. Modules hold the parameters; the mathematics is in :mod:`convit.ops`.

All three take ``(x, grid, num_prefix_tokens)``, so that a block can hold any of them, and answer for themselves: their
``kind``, their :attr:`gates`, their :meth:`position_weight`, and their maps. A map is handed out as PyTorch hands out
what is inside a model: by a forward hook on the module that it passes through, ``content_map``, ``positional_map`` or,
with the map that multiplies the values, ``attn_drop``. What such a hook returns is what the layer goes on with. Where
nobody asks for a map there is none: the fast forms run.

Shapes: B batch, P prefix tokens, N patches, h heads, d = C / h head width. Parameter names are those of the published
code.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from timm.models import register_notrace_module
from torch import Tensor, nn

from convit import ops
from convit.choices import PUBLISHED_STD
from convit.errors import brief, is_number, is_whole
from convit.layers.init import convolutional_pos_weight, start_weights
from convit.layers.linear import is_untouched, linear_weight
from convit.ops import factorized


class AttentionBase(nn.Module):
    """What the three layers have in common, and what :mod:`convit.analysis` needs of a layer of your own: ``kind``,
    ``num_heads``, an ``attn_drop`` that the map passes through where it has a hook, and a ``place`` that the grid and
    the number of prefix tokens pass through."""

    kind: ClassVar[str]

    def __init__(self, dim: int, num_heads: int, attn_drop: float, proj_drop: float, weight_std: float | str) -> None:
        super().__init__()
        _check("a whole number of at least 1", lambda value: is_whole(value) and value >= 1, dim=dim)
        _check("a divisor of the width", is_whole, num_heads=num_heads)
        drops = {"attn_drop": attn_drop, "proj_drop": proj_drop}
        _check("a number from 0 to 1", lambda value: is_number(value) and 0 <= value <= 1, **drops)
        _check_heads(dim, num_heads)
        self.dim = dim
        self.num_heads = num_heads
        self.weight_std = weight_std
        self.place = nn.Identity()
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj_drop = nn.Dropout(proj_drop)

    @torch.jit.unused
    def _placed(self, x: Tensor, grid: tuple[int, int] | None, num_prefix_tokens: int) -> Any:
        """Checks the shape of the tokens, and lets ``place`` know the rest."""
        if x.ndim != 3 or x.shape[2] != self.dim:
            raise ValueError(f"x: got shape {tuple(x.shape)}, expected (B, P + N, {self.dim})")
        return self.place((grid, num_prefix_tokens))

    @torch.jit.unused
    def _drops(self) -> bool:
        """Whether entries of the map are dropped; ``attn_drop``'s own mode counts, as in Monte Carlo dropout."""
        return isinstance(self.attn_drop, nn.Dropout) and self.attn_drop.training and self.attn_drop.p > 0


@register_notrace_module  # FX: the checks of shapes cannot be traced
class SelfAttention(AttentionBase):
    """Plain multi-head self-attention, ``softmax(q k^T / sqrt(d)) v``: the last blocks of ConViT, all of DeiT's.

    Args:
        dim: width C, a multiple of ``num_heads``.
        num_heads: number of heads h.
        qkv_bias: whether queries, keys and values have a bias.
        attn_drop: dropout probability of the attention, in training.
        proj_drop: dropout probability of the output, in training.
        weight_std: of the normal that weights start from; ``"fan_in"`` for ``fan_in^-1/2``.
    """

    kind = "sa"

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        qkv_bias: bool = False,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        weight_std: float | str = PUBLISHED_STD,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dim, num_heads, attn_drop, proj_drop, weight_std)
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias, device=device, dtype=dtype)
        self.proj = nn.Linear(dim, dim, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the start of the published code."""
        start_weights(self.qkv, self.weight_std)
        start_weights(self.proj, self.weight_std)

    def forward(self, x: Tensor, grid: tuple[int, int] | None = None, num_prefix_tokens: int = 0) -> Tensor:
        """Attends over all tokens of ``x``, ``(B, P + N, C)``; where they lie makes no difference."""
        if not torch.jit.is_scripting():
            self._placed(x, grid, num_prefix_tokens)
        q, k, v = split_heads(self.qkv(x), 3, self.num_heads).unbind(0)
        if torch.jit.is_scripting():
            out = factorized.content_attention(q, k, v)
        elif not is_untouched(self.attn_drop):
            out = ops.self_attention(q, k, v, through=ops.Through(mixed=self.attn_drop))
        else:
            out = ops.self_attention(q, k, v, self.attn_drop.p if self._drops() else 0.0)
        return self.proj_drop(self.proj(merge_heads(out)))


class PositionalBase(AttentionBase):
    """What PSA and GPSA have in common: apart from the gate they hold the same."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        qkv_bias: bool,
        attn_drop: float,
        proj_drop: float,
        locality_strength: float,
        conv_init: bool,
        weight_std: float | str,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__(dim, num_heads, attn_drop, proj_drop, weight_std)
        _check("True or False", lambda value: isinstance(value, bool), qkv_bias=qkv_bias, conv_init=conv_init)
        _check("a number above 0", is_number, locality_strength=locality_strength)
        self.locality_strength = locality_strength
        self.conv_init = conv_init
        self.qk = nn.Linear(dim, 2 * dim, bias=qkv_bias, device=device, dtype=dtype)
        self.v = nn.Linear(dim, dim, bias=qkv_bias, device=device, dtype=dtype)
        self.proj = nn.Linear(dim, dim, device=device, dtype=dtype)
        # Its bias adds the same to the logits of all keys, so it cancels in the softmax and its gradient is zero. It is
        # here because published checkpoints have it.
        self.pos_proj = nn.Linear(3, num_heads, device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        """Draws the start of the published code, then the convolutional start if it is asked for."""
        for linear in (self.qk, self.v):
            start_weights(linear, self.weight_std if self.conv_init else PUBLISHED_STD)
        start_weights(self.proj, self.weight_std)
        start_weights(self.pos_proj)
        if self.conv_init:
            with torch.no_grad():
                nn.init.eye_(self.v.weight)
                self.pos_proj.weight.copy_(convolutional_pos_weight(self.num_heads, self.locality_strength))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of every head, ``(B, h, P + N, d)`` each."""
        q, k = split_heads(self.qk(x), 2, self.num_heads).unbind(0)
        return q, k, split_heads(self.v(x), 1, self.num_heads)[0]

    def position_weight(self, like: Tensor | None = None) -> Tensor:
        """``v_pos`` of every head, ``(h, 3)``: the weights of ``dx``, ``dy`` and ``dx^2 + dy^2``.

        What hangs on ``pos_proj``, or stands in its place, takes part (:func:`linear_weight`). TorchScript knows none
        of that, and takes a plain ``nn.Linear`` alone.

        Args:
            like: a tensor where the layer computes; left out, it computes where its parameters are.
        """
        if torch.jit.is_scripting():
            return self.pos_proj.weight + 0.0 * self.pos_proj.bias[:, None]
        return linear_weight(self.pos_proj, 3, like)


@register_notrace_module
class PositionalSelfAttention(PositionalBase):
    """Ungated positional self-attention (PSA, equations 3 and 4): one softmax over content and position together.

    Args:
        dim: width C, a multiple of ``num_heads``.
        num_heads: number of heads h.
        qkv_bias: whether queries, keys and values have a bias.
        attn_drop: dropout probability of the attention, in training; above 0 the slow naive form trains.
        proj_drop: dropout probability of the output, in training.
        locality_strength: ``a`` of the convolutional start, in patches^-2.
        conv_init: start as a convolution (equation 5): ``W_val`` is the identity and each head looks at its cell of a
            kernel (:func:`convit.layers.init.head_centres`). Otherwise queries, keys, values and positions are drawn
            with the published 0.02, as in rows c, d and g of the paper's Table 3, whatever ``weight_std`` is.
        weight_std: of the normal that weights start from; ``"fan_in"`` for ``fan_in^-1/2``.
    """

    kind = "psa"

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        qkv_bias: bool = False,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        locality_strength: float = 1.0,
        conv_init: bool = True,
        weight_std: float | str = PUBLISHED_STD,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        drops = (attn_drop, proj_drop)
        super().__init__(dim, num_heads, qkv_bias, *drops, locality_strength, conv_init, weight_std, device, dtype)
        self.reset_parameters()

    def forward(self, x: Tensor, grid: tuple[int, int] | None = None, num_prefix_tokens: int = 0) -> Tensor:
        """Attends over the tokens of ``x``.

        Args:
            x: ``(B, P + N, C)``, prefix tokens first.
            grid: ``(height, width)`` of the N patches; a square if left out.
            num_prefix_tokens: P, tokens without a position, such as the class token.

        Returns:
            ``(B, P + N, C)``.

        Raises:
            ValueError: the tokens do not fill the grid.
        """
        if not torch.jit.is_scripting():
            grid, num_prefix_tokens = self._placed(x, grid, num_prefix_tokens)
        q, k, v = self.project(x)
        weight = self.position_weight(x)
        if torch.jit.is_scripting():
            full = ops.scripted_grid(q.shape[2] - num_prefix_tokens, grid)
            out = factorized.positional_attention(q, k, v, weight, full, num_prefix_tokens)
        else:
            wanted = not is_untouched(self.attn_drop) or self._drops()
            through = ops.Through(mixed=self.attn_drop) if wanted else None
            out = ops.positional_attention(q, k, v, weight, grid, num_prefix_tokens, through=through)
        return self.proj_drop(self.proj(merge_heads(out)))


@register_notrace_module
class GatedPositionalSelfAttention(PositionalBase):
    """Gated positional self-attention (GPSA, equations 6 and 7), the layer of ConViT. Exported as ``convit.GPSA``.

    Each head mixes content attention and positional attention through one trained gate, ``sigmoid(gating_param)``;
    with ``gate_init=1``, 73% of a head's attention is at its cell of a convolution kernel at the start.

    Args:
        dim: width C, a multiple of ``num_heads``.
        num_heads: number of heads h; a square number gives a full kernel.
        gate_init: the start of every gate's logit; 1 in the paper.
        qkv_bias, attn_drop, proj_drop, locality_strength, conv_init, weight_std: as in
            :class:`PositionalSelfAttention`.

    Example:
        >>> layer = GatedPositionalSelfAttention(dim=36, num_heads=9)
        >>> layer(torch.randn(2, 4 * 6, 36), grid=(4, 6)).shape
        torch.Size([2, 24, 36])
    """

    kind = "gpsa"

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        qkv_bias: bool = False,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        locality_strength: float = 1.0,
        conv_init: bool = True,
        gate_init: float = 1.0,
        weight_std: float | str = PUBLISHED_STD,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        drops = (attn_drop, proj_drop)
        super().__init__(dim, num_heads, qkv_bias, *drops, locality_strength, conv_init, weight_std, device, dtype)
        _check("a number", lambda value: is_number(value) and math.isfinite(value), gate_init=gate_init)
        self.content_map = nn.Identity()
        self.positional_map = nn.Identity()
        self.gate_init = gate_init
        self.gating_param = nn.Parameter(torch.empty(num_heads, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the start of the published code: weights, convolution, gates."""
        super().reset_parameters()
        nn.init.constant_(self.gating_param, self.gate_init)

    @property
    def gates(self) -> Tensor:
        """The weight of positional attention in each head, ``sigmoid(gating_param)``, from 0 to 1: ``(h,)``."""
        return ops.gates(self.gating_param.detach())

    def forward(self, x: Tensor, grid: tuple[int, int] | None = None, num_prefix_tokens: int = 0) -> Tensor:
        """Attends over the tokens of ``x``; arguments, result and errors as in :class:`PositionalSelfAttention`."""
        if not torch.jit.is_scripting():
            grid, num_prefix_tokens = self._placed(x, grid, num_prefix_tokens)
        q, k, v = self.project(x)
        weight = self.position_weight(x)
        gate = self.gating_param
        if torch.jit.is_scripting():
            full = ops.scripted_grid(q.shape[2] - num_prefix_tokens, grid)
            out = factorized.gated_attention(q, k, v, gate, weight, full, num_prefix_tokens)
        else:
            points = (self.content_map, self.positional_map, self.attn_drop)
            wanted = self._drops() or not all(map(is_untouched, points))
            through = ops.Through(*points) if wanted else None
            out = ops.gated_attention(q, k, v, gate, weight, grid, num_prefix_tokens, through=through)
        return self.proj_drop(self.proj(merge_heads(out)))


def _check(expected: str, holds: Callable[[Any], bool], **values: object) -> None:
    """Whether arguments of a layer are what they have to be, by name."""
    for name, value in values.items():
        if not holds(value):
            raise ValueError(f"{name}: got {brief(value)}, expected {expected}")


def _check_heads(dim: int, num_heads: int) -> None:
    if num_heads < 1 or dim % num_heads:
        nearest = [n for n in range(1, dim + 1) if dim % n == 0]
        nearest.sort(key=lambda n: abs(n - num_heads))
        raise ValueError(
            f"num_heads: got {num_heads} for a width of {dim}, expected a divisor of the width, such as {nearest[0]}"
        )


def split_heads(x: Tensor, parts: int, num_heads: int) -> Tensor:
    """``(B, N, parts * C)`` to ``(parts, B, h, N, d)``, a view of the input."""
    batch, tokens, width = x.shape
    return x.view(batch, tokens, parts, num_heads, width // (parts * num_heads)).permute(2, 0, 3, 1, 4)


def merge_heads(x: Tensor) -> Tensor:
    """``(B, h, N, d)`` to ``(B, N, C)``."""
    return x.transpose(1, 2).flatten(2)
