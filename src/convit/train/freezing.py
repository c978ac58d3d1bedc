"""Which parts of a model do not learn."""

import torch
from torch import nn

from convit.layers import GatedPositionalSelfAttention, PositionalSelfAttention
from convit.models import ConViT
from convit.train.config import ModelConfig


def hold_frozen_norms(model: nn.Module) -> None:
    """Batch norm that does not learn normalises by its running means in training too, and leaves them as they are."""
    for module in model.modules():
        if hasattr(module, "running_mean") and module.weight is not None and not module.weight.requires_grad:
            module.eval()


def freeze_parts(model: ConViT, options: ModelConfig) -> None:
    """Makes untrainable what the options say: first blocks, gates, the attention of the GPSA blocks.

    Args:
        model: changed in place.
        options: ``freeze`` blocks from the image on; with ``freeze_gates`` every gate's logit becomes 0, the gate one
            half; with ``freeze_gpsa`` queries, keys, values, positions, gates and the projection after them stay.

    Example:
        >>> model = ConViT(img_size=16, patch_size=4, embed_dim=8, depth=2, num_heads=4, local_up_to_layer=1)
        >>> freeze_parts(model, ModelConfig(freeze_gates=True))
        >>> model.blocks[0].attn.gates.tolist(), model.blocks[0].attn.gating_param.requires_grad
        ([0.5, 0.5, 0.5, 0.5], False)
    """
    model.freeze(options.freeze)
    for layer in model.modules():
        if options.freeze_gates and isinstance(layer, GatedPositionalSelfAttention):
            with torch.no_grad():
                layer.gating_param.zero_()
            layer.gating_param.requires_grad_(False)
        if options.freeze_gpsa and isinstance(layer, PositionalSelfAttention):
            layer.requires_grad_(False)
