"""Which parameters of a model learn, at which rate, and with weight decay."""

from typing import Any

import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn

from convit.layers import GatedPositionalSelfAttention, PositionalBase
from convit.models import ConViT


def freeze(model: ConViT, *, blocks: int = 0, gates: bool = False, gpsa: bool = False) -> None:
    """Makes parts of a model untrainable.

    Args:
        model: changed in place.
        blocks: so many of the first ones, and what is before them.
        gates: every gate's logit becomes 0, the gate one half, and stays.
        gpsa: queries, keys, values, positions, gates and the projection after them stay.

    Example:
        >>> model = ConViT(img_size=16, patch_size=4, embed_dim=8, depth=2, num_heads=4, local_up_to_layer=1)
        >>> freeze(model, gates=True)
        >>> model.blocks[0].attn.gates.tolist(), model.blocks[0].attn.gating_param.requires_grad
        ([0.5, 0.5, 0.5, 0.5], False)
    """
    model.freeze(blocks)
    for layer in model.modules():
        if gates and isinstance(layer, GatedPositionalSelfAttention):
            with torch.no_grad():
                layer.gating_param.zero_()
            layer.gating_param.requires_grad_(False)
        if gpsa and isinstance(layer, PositionalBase):
            layer.requires_grad_(False)


def hold_frozen_norms(model: nn.Module) -> None:
    """Makes frozen batch norms use their running means in training too, without updating them."""
    for module in model.modules():
        if hasattr(module, "running_mean") and module.weight is not None and not module.weight.requires_grad:
            module.eval()


def parameter_groups(
    model: ConViT, *, weight_decay: float, layer_decay: float, position_lr: float
) -> list[dict[str, Any]]:
    """The parameters that learn, in groups for an optimiser; a scheduler of timm multiplies by ``lr_scale``.

    Args:
        model: with GPSA layers or without.
        weight_decay: for matrices; none for biases, norms, gates and embeddings.
        layer_decay: learning rate of each block over that of the next.
        position_lr: learning rate of gates and of where heads look (``gating_param``, ``pos_proj``) over that of the
            other weights. AdamW moves every number by about the learning rate a step: a logit of 1 has a long way to
            0, where a weight of 0.02 has a short one.
    """
    exempt = model.no_weight_decay()
    if layer_decay != 1:
        groups = param_groups_layer_decay(model, weight_decay, exempt, layer_decay=layer_decay)
    else:
        groups = param_groups_weight_decay(model, weight_decay, no_weight_decay_list=exempt)
    if position_lr == 1:
        return groups
    apart = {id(parameter) for parameter in position_parameters(model)}
    rates = {False: 1.0, True: position_lr}
    return [
        group | {"params": chosen, "lr_scale": group.get("lr_scale", 1.0) * rates[positional]}
        for group in groups
        for positional in rates
        if (chosen := [p for p in group["params"] if (id(p) in apart) == positional])
    ]


def position_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Gates, and the weights that say where heads look, of every layer that has them."""
    found: list[nn.Parameter] = []
    for layer in model.modules():
        if isinstance(layer, PositionalBase):
            found += layer.pos_proj.parameters()
        if isinstance(layer, GatedPositionalSelfAttention):
            found.append(layer.gating_param)
    return found
