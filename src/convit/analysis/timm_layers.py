"""Adapters for timm's attention modules: the two of its ConViT, sped up or not, and the plain one of ViT and DeiT.

timm's own code runs, with the map in memory: the input of ``attn_drop`` is the map that multiplies the values.
"""

from contextlib import ExitStack
from typing import Any

import torch
from timm.models.convit import GPSA, MHSA
from timm.models.vision_transformer import Attention
from torch import Tensor, nn

from convit import ops
from convit.analysis.layer import AttentionLayer, Pass, kept, replaced
from convit.errors import InputError
from convit.grid import Grid
from convit.layers.linear import linear_weight
from convit.ops import naive


class TimmAttention(AttentionLayer):
    """Plain attention."""

    kind = "sa"

    def _watch(self, stack: ExitStack, parts: dict[str, Any]) -> None:
        if isinstance(self.module, Attention):
            stack.enter_context(replaced(vars(self.module), "fused_attn", False))
        stack.enter_context(kept(self.module.attn_drop, parts, "mixed"))

    def _pass(self, parts: dict[str, Any], hidden: Tensor, network: nn.Module, images: Tensor) -> Pass:
        mixed, grid = parts["mixed"], self._grid(network, images)
        prefix = mixed.shape[-1] - grid.num_patches
        if mixed.ndim != 4 or prefix < 0:
            raise InputError(
                f"model: got a map of shape {tuple(mixed.shape)}, expected (B, h, T, T) of at least the "
                f"{grid.num_patches} patches of the picture: attention over all of it"
            )
        content, positional = self._parts(parts, grid)
        return Pass(grid, prefix, mixed, content, positional, hidden)

    def _parts(self, parts: dict[str, Any], grid: Grid) -> tuple[Tensor | None, Tensor | None]:
        """The two maps that were mixed."""
        return None, None

    def _grid(self, network: nn.Module, images: Tensor) -> Grid:
        """The patches' grid, which timm's attention does not know."""
        stem: Any = getattr(network, "patch_embed", None)
        if not hasattr(stem, "dynamic_feat_size"):
            raise InputError(
                f"model: got {type(network).__name__} without a patch_embed of timm, expected one: "
                f"layer {self.index} does not know the grid of its patches"
            )
        return Grid(*stem.dynamic_feat_size(tuple(images.shape[-2:])))


class TimmGPSA(TimmAttention):
    """Gated positional attention."""

    kind = "gpsa"

    @property
    def gates(self) -> Tensor | None:
        """The weight of positional attention in each head, ``(h,)``."""
        return ops.gates(self.module.gating_param.detach())

    @property
    def position_weight(self) -> Tensor | None:
        """``v_pos``, ``(h, 3)``."""
        with torch.no_grad():
            return linear_weight(self.module.pos_proj, 3)

    def _watch(self, stack: ExitStack, parts: dict[str, Any]) -> None:
        super()._watch(stack, parts)
        stack.enter_context(kept(self.module.qk, parts, "qk"))
        # timm keeps N x N positions for the last image size; a model that was sped up has none.
        stack.enter_context(replaced(self.module._buffers, "rel_indices", self.module.rel_indices))

    def _parts(self, parts: dict[str, Any], grid: Grid) -> tuple[Tensor | None, Tensor | None]:
        q, k = parts["qk"].unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        weight = self.position_weight
        assert weight is not None
        positional = naive.positional_map(weight, grid, naive.compute_dtype(weight.dtype))
        return naive.content_map(q, k, self.module.scale), positional


ADAPTERS: dict[type[nn.Module], type[AttentionLayer]] = {GPSA: TimmGPSA, MHSA: TimmAttention, Attention: TimmAttention}
