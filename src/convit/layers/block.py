"""One transformer block: attention and a two-layer perceptron, each after a norm and with a residual connection."""

from collections.abc import Callable
from functools import partial

import torch
from timm.layers import DropPath, LayerNorm, Mlp
from torch import Tensor, nn

from convit.choices import PUBLISHED_STD
from convit.layers.init import start_weights


class Block(nn.Module):
    """``x = x + attention(norm(x))``, then ``x = x + mlp(norm(x))`` (pre-norm, as in ViT and DeiT).

    Args:
        dim: width C.
        attention: the attention layer; any module that takes ``(x, grid, num_prefix_tokens)``.
        mlp_ratio: hidden width of the perceptron over C.
        proj_drop: dropout probability inside the perceptron, in training.
        drop_path: probability of leaving out a residual branch for a sample, in training (stochastic depth).
        norm_layer: a norm's constructor, given the width.
        weight_std: standard deviation of the perceptron's initial weights; ``"fan_in"`` for ``fan_in^-1/2``.
    """

    def __init__(
        self,
        dim: int,
        attention: nn.Module,
        mlp_ratio: float = 4.0,
        proj_drop: float = 0.0,
        drop_path: float = 0.0,
        norm_layer: Callable[..., nn.Module] = LayerNorm,
        weight_std: float | str = PUBLISHED_STD,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = norm_layer(dim, device=device, dtype=dtype)
        self.attn = attention
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.norm2 = norm_layer(dim, device=device, dtype=dtype)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=proj_drop, device=device, dtype=dtype)
        self.mlp.apply(partial(start_weights, std=weight_std))

    def forward(self, x: Tensor, grid: tuple[int, int] | None = None, num_prefix_tokens: int = 0) -> Tensor:
        """``(B, P + N, C)`` to the same shape; ``grid`` and ``num_prefix_tokens`` are handed to the attention."""
        x = x + self.drop_path(self.attn(self.norm1(x), grid, num_prefix_tokens))
        return x + self.drop_path(self.mlp(self.norm2(x)))
