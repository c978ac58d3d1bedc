"""ConViT: a vision transformer whose first blocks start out as convolutions.

Above 350 lines, for it is one class: the model, and the methods by which timm knows it.

Shapes: B batch, P prefix tokens (the class token, 0 or 1), N patches, C width.
"""

from collections.abc import Callable
from typing import Any

import torch
from timm.layers import LayerNorm, calculate_drop_path_rates, get_device_dtype, trunc_normal_
from timm.models import register_notrace_function
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from convit.choices import PUBLISHED_STD
from convit.grid import Grid
from convit.layers import Block, GatedPositionalSelfAttention, PositionalSelfAttention, SelfAttention, TokenBatchNorm
from convit.layers.init import start_weights
from convit.models.position import position_embedding
from convit.models.ranges import RANGES, check_ranges
from convit.models.stem import ConvStem, make_stem, patch_grid


class ConViT(nn.Module):
    """A vision transformer with gated positional self-attention (GPSA) in its first blocks (paper, section 3).

    The class token has no position, so it is added after the last GPSA block. If all blocks are GPSA it is added before
    the last one, where it attends by content alone; with ``global_pool="token"`` the gates and attention centres of
    that block then do not change the output, and their gradient is zero.

    Args:
        img_size: side of the images in pixels, or ``(height, width)``. Other sizes that the patch divides work at run
            time too: position embeddings are resized.
        patch_size: side of a patch in pixels; with ``hybrid_backbone``, side of the area that one token covers.
        in_chans: channels of the images.
        num_classes: width of the output; 0 for no head.
        global_pool: input of the head: ``"token"`` the class token, ``"avg"`` the mean of patches, ``""`` all tokens.
        class_token: False leaves the class token out, as in ``nano`` and ``mini``: with ``global_pool="avg"`` the head
            does not read it, and the plain-attention twin would carry it through every block.
        embed_dim: C, the whole width (not per head).
        depth: number of blocks.
        num_heads: heads per block; a square number gives a full convolution kernel.
        mlp_ratio: hidden width of each block's perceptron over C.
        qkv_bias: whether queries, keys and values have a bias.
        drop_rate: dropout probability before the head.
        pos_drop_rate: dropout probability after the position embedding.
        proj_drop_rate: dropout probability after each projection.
        attn_drop_rate: dropout probability of the attention; above 0 training uses the slow naive form.
        drop_path_rate: stochastic depth of the last block, growing linearly from 0 at the first.
        hybrid_backbone: a CNN in place of the patch embedding: ``"conv"`` for a few strided convolutions
            (:class:`convit.models.stem.ConvStem`), the name of a timm model with features (its deepest feature map
            whose stride divides ``patch_size`` is taken), or a module that gives a feature map.
        norm_layer: a norm's constructor, given the width.
        batch_norm: batch norm in place of layer norm, in the convolutional stem too (:class:`TokenBatchNorm`).
        local_up_to_layer: number of GPSA blocks at the start; 0 gives the plain-attention twin (DeiT).
        locality_strength: ``a`` of the convolutional init, in patches^-2.
        use_pos_embed: add a learned absolute position embedding to the patches at the input.
        gated: False takes ungated positional attention (PSA) in place of GPSA (paper, figure 9).
        conv_init: False leaves out the convolutional init (paper, table 3, rows c, d and g): queries, keys, values
            and positions of these blocks then start from the paper's 0.02, whatever ``weight_std`` is.
        gate_init: initial logit of every gate; 1 in the paper, 3 in ``nano`` and ``mini``.
        weight_std: standard deviation of the initial linear weights of the blocks, 0.02 in the paper; ``"fan_in"``
            for ``fan_in^-1/2``, with which narrow models learn faster at first.
        device, dtype: of the parameters.

    Raises:
        ValueError: an argument out of its range (:mod:`convit.models.ranges`), before anything is allocated; sizes that
            do not fit together, with the nearest that do.

    Example:
        >>> model = ConViT(img_size=32, patch_size=4, num_classes=10, embed_dim=36, depth=2, num_heads=9,
        ...                local_up_to_layer=1)
        >>> model(torch.randn(2, 3, 32, 48)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "token",
        class_token: bool = True,
        embed_dim: int = 192,
        depth: int = 12,
        num_heads: int = 4,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = False,
        drop_rate: float = 0.0,
        pos_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        hybrid_backbone: str | nn.Module | None = None,
        norm_layer: Callable[..., nn.Module] = LayerNorm,
        batch_norm: bool = False,
        local_up_to_layer: int = 10,
        locality_strength: float = 1.0,
        use_pos_embed: bool = True,
        gated: bool = True,
        conv_init: bool = True,
        gate_init: float = 1.0,
        weight_std: float | str = PUBLISHED_STD,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        given = {name: value for name, value in locals().items() if name in RANGES}
        super().__init__()
        check_ranges(given)
        if global_pool == "token" and not class_token:
            raise ValueError("class_token: got False with global_pool='token', which reads it, expected True, or 'avg'")
        if batch_norm and norm_layer is not LayerNorm:
            raise ValueError("norm_layer: got one with batch_norm=True, expected one of the two")
        norm_layer = TokenBatchNorm if batch_norm else norm_layer
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.global_pool = global_pool
        self.num_features = self.head_hidden_size = self.embed_dim = embed_dim
        self.patch_size = patch_size
        self.local_up_to_layer = local_up_to_layer
        self.class_token_at = min(local_up_to_layer, depth - 1)  # the block before which it joins
        self.grad_checkpointing = False

        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.img_size = (height, width)
        self.grid_size = patch_grid(height, width, patch_size)
        self.patch_embed = make_stem(
            hybrid_backbone, self.img_size, patch_size, in_chans, embed_dim, batch_norm=batch_norm, **dd
        )
        # The layer that sees the channels of the image, which timm adapts to others.
        conv_stem = isinstance(getattr(self.patch_embed, "backbone", None), ConvStem)
        self.first_conv = "patch_embed.backbone.0" if conv_stem else "patch_embed.proj"
        self.cls_token: nn.Parameter | None = None
        if class_token:
            self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim, **dd))
        self.num_prefix_tokens = 0 if self.cls_token is None else 1
        self.pos_embed: nn.Parameter | None = None
        if use_pos_embed:
            self.pos_embed = nn.Parameter(torch.empty(1, self.grid_size.num_patches, embed_dim, **dd))
        self.pos_drop = nn.Dropout(pos_drop_rate)

        common: dict[str, Any] = {"dim": embed_dim, "num_heads": num_heads, "qkv_bias": qkv_bias}
        common |= {"attn_drop": attn_drop_rate, "proj_drop": proj_drop_rate, "weight_std": weight_std, **dd}
        local: dict[str, Any] = {"locality_strength": locality_strength, "conv_init": conv_init}

        def attention(layer: int) -> nn.Module:
            if layer >= local_up_to_layer:
                return SelfAttention(**common)
            if gated:
                return GatedPositionalSelfAttention(**common, **local, gate_init=gate_init)
            return PositionalSelfAttention(**common, **local)

        drop_paths: list[Any] = calculate_drop_path_rates(drop_path_rate, depth)
        self.blocks = nn.Sequential(
            *(
                Block(embed_dim, attention(layer), mlp_ratio, proj_drop_rate, drop_path, norm_layer, weight_std, **dd)
                for layer, drop_path in enumerate(drop_paths)
            )
        )
        self.norm = norm_layer(embed_dim, **dd)
        self.feature_info = [
            {"num_chs": embed_dim, "reduction": patch_size, "module": f"blocks.{layer}"} for layer in range(depth)
        ]
        self.head_drop = nn.Dropout(drop_rate)
        self.head = self._new_head()
        for embedding in (self.cls_token, self.pos_embed):
            if embedding is not None:
                trunc_normal_(embedding, std=0.02)

    # -- from image to logits --------------------------------------------------------------------------------------

    def embed(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Images ``(B, in_chans, H, W)`` to patches with their position, ``(B, N, C)``, and the grid they fill."""
        grid = image_grid(x, self.patch_size)
        if not torch.jit.is_scripting() and not isinstance(grid[0], int):
            # An exported graph has no check of its sizes. This fails where the patch does not divide them; ONNX's
            # convolution would silently leave out the rest.
            x = x.unflatten(2, (grid[0], self.patch_size)).unflatten(4, (grid[1], self.patch_size))
            x = x.flatten(4, 5).flatten(2, 3)
        # Contiguous, or the residual path keeps the stem's layout, and every sum and norm of the blocks pays for it.
        x = self.patch_embed(x).flatten(2).transpose(1, 2).contiguous()
        if self.pos_embed is not None:
            x = x + position_embedding(self.pos_embed, grid, self.grid_size)
        return self.pos_drop(x), grid

    def join(self, layer: int, x: Tensor, prefix: int) -> tuple[Tensor, int]:
        """The tokens as block ``layer`` takes them, the class token before them from ``class_token_at`` on; and P."""
        if layer == self.class_token_at and self.cls_token is not None:
            return torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1), 1
        return x, prefix

    def forward_features(self, x: Tensor) -> Tensor:
        """Images ``(B, in_chans, H, W)`` to normalised tokens ``(B, P + N, C)``, the class token first."""
        x, grid = self.embed(x)
        prefix = 0
        for layer, block in enumerate(self.blocks):
            x, prefix = self.join(layer, x, prefix)
            if self.grad_checkpointing and self.training and not torch.jit.is_scripting():
                x = checkpoint(block, x, grid, prefix, use_reentrant=False)
            else:
                x = block(x, grid, prefix)
        return self.norm(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Tokens ``(B, P + N, C)`` to logits ``(B, num_classes)``, or to what the head reads with ``pre_logits``."""
        if self.global_pool == "avg":
            x = x[:, self.num_prefix_tokens :].mean(dim=1)
        elif self.global_pool == "token":
            x = x[:, 0]
        x = self.head_drop(x)
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(B, in_chans, H, W)`` to logits ``(B, num_classes)``."""
        return self.forward_head(self.forward_features(x))

    # -- what timm asks of a model ---------------------------------------------------------------------------------

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The patches after any of the blocks, as feature maps.

        Args:
            x: images, ``(B, in_chans, H, W)``, of any size that the patch divides.
            indices: the last n blocks for a number, the blocks numbered for a list, all for None.
            return_prefix_tokens: give ``(patches, prefix)`` for each block; before the class token is added, the
                prefix is ``(B, 0, C)``.
            norm: apply the final norm to each.
            stop_early: do not run the blocks after the last one asked for.
            output_fmt: ``"NCHW"`` for ``(B, C, H / p, W / p)``, ``"NLC"`` for ``(B, N, C)``.
            intermediates_only: leave out the final tokens.

        Returns:
            The final tokens ``(B, P + N, C)`` and the list of intermediates, or that list alone.
        """
        if output_fmt != "NCHW" and output_fmt != "NLC":  # in the words that TorchScript knows
            raise ValueError(f"output_fmt: got '{output_fmt}', expected 'NCHW' or 'NLC'")
        take, last = feature_take_indices(len(self.blocks), indices)
        x, grid = self.embed(x)
        prefix = 0
        patches: list[Tensor] = []
        prefixes: list[Tensor] = []
        for layer, block in enumerate(self.blocks):
            if layer <= last or not stop_early:
                x, prefix = self.join(layer, x, prefix)
                if self.grad_checkpointing and self.training and not torch.jit.is_scripting():
                    x = checkpoint(block, x, grid, prefix, use_reentrant=False)
                else:
                    x = block(x, grid, prefix)
            if layer in take:
                tokens = self.norm(x) if norm else x
                patches.append(tokens[:, prefix:])
                prefixes.append(tokens[:, :prefix])
        if output_fmt == "NCHW":
            patches = [tokens.transpose(1, 2).unflatten(2, grid).contiguous() for tokens in patches]
        if not torch.jit.is_scripting() and return_prefix_tokens:
            pairs = list(zip(patches, prefixes, strict=True))
            return pairs if intermediates_only else (self.norm(x), pairs)  # type: ignore[return-value]
        if intermediates_only:
            return patches
        return self.norm(x), patches

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Removes the blocks after the last one asked for; see timm. Returns the indices that remain to be taken."""
        take, last = feature_take_indices(len(self.blocks), indices)
        self.blocks = self.blocks[: last + 1]
        if last < self.class_token_at:  # the class token would join a block that is gone
            self.cls_token = None
            self.num_prefix_tokens = 0
            prune_head = prune_head or self.global_pool == "token"
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0, "")
        return take

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay would harm: embeddings of position and class."""
        return {"pos_embed", "cls_token"}

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which parameters form a layer, for layer-wise learning rates."""
        return {
            "stem": r"^cls_token|pos_embed|patch_embed",
            "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
        }

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass: less memory, about a third more time.

        Batch norm then updates its running means twice for each batch.
        """
        self.grad_checkpointing = enable

    @torch.jit.ignore
    def freeze(self, blocks: int) -> None:
        """Makes the stem, the position embedding and the first ``blocks`` blocks untrainable; 0 changes nothing.

        Running means of batch norm are still updated in training mode; ``convit train`` freezes them too.
        """
        if not 0 <= blocks <= len(self.blocks):
            raise ValueError(f"freeze: got {blocks}, expected 0 to the {len(self.blocks)} blocks of the model")
        if blocks == 0:
            return
        frozen: list[nn.Module | nn.Parameter | None] = [self.patch_embed, self.pos_embed, *self.blocks[:blocks]]
        if blocks > self.class_token_at:
            frozen.append(self.cls_token)
        for part in frozen:
            if part is not None:
                part.requires_grad_(False)

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.head

    @torch.jit.ignore
    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new head of ``num_classes`` on the same device, in the same type and mode; pooling is kept if not given."""
        if global_pool is not None:
            has_token = self.cls_token is not None  # an AssertionError is what timm's own models raise
            assert global_pool != "token" or has_token, "global_pool: got 'token', but the model has no class token"
            check_ranges({"global_pool": global_pool})
            self.global_pool = global_pool
        self.num_classes = num_classes
        self.head = self._new_head().train(self.training)

    def _new_head(self) -> nn.Module:
        if self.num_classes == 0:
            return nn.Identity()
        head = nn.Linear(self.embed_dim, self.num_classes, **get_device_dtype(self))
        start_weights(head)
        return head


@register_notrace_function
def image_grid(x: Tensor, patch_size: int) -> Grid:
    """The grid of patches of images ``(B, C, H, W)``. (FX takes it as one step: it cannot trace the check.)"""
    if not torch.jit.is_scripting() and x.ndim != 4:
        raise ValueError(f"images: got shape {tuple(x.shape)}, expected (B, channels, height, width)")
    return patch_grid(x.shape[2], x.shape[3], patch_size)
