"""Finds the attention layers of a model: ours, timm's ConViT, timm's plain attention."""

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from convit.analysis.layer import AttentionLayer
from convit.analysis.timm_layers import ADAPTERS
from convit.errors import InputError
from convit.layers import AttentionBase
from convit.models import ConViT


def attention_layers(model: nn.Module) -> tuple[AttentionLayer, ...]:
    """Every attention layer of a known kind, in the order in which the model holds them.

    Raises:
        InputError: none, not a module, parameters that are sharded over processes or not in memory, or a ConViT with an
            attention that does not hand out its maps.
    """
    network = unwrap(model)
    kinds: dict[type[nn.Module], type[AttentionLayer]] = {AttentionBase: AttentionLayer} | ADAPTERS
    found: list[AttentionLayer] = []
    for name, module in network.named_modules():
        adapter = next((kinds[cls] for cls in kinds if isinstance(module, cls)), None)
        if adapter is not None:
            found.append(adapter(len(found), module, network.get_submodule(name.rpartition(".")[0])))
    known = {id(layer.module) for layer in found}
    for index, block in enumerate(network.blocks if isinstance(network, ConViT) else ()):
        if id(block.attn) not in known:  # left out, the layers after it would have other numbers
            raise InputError(
                f"model: got {type(block.attn).__name__} as the attention of block {index}, which does not hand out "
                "its maps; expected a subclass of convit.layers.AttentionBase"
            )
    if not found:
        raise InputError(
            f"model: got {type(network).__name__} with no attention of a known kind in it, "
            "expected a ConViT of convit or timm, or a model with timm's plain Attention such as ViT or DeiT"
        )
    return tuple(found)


def unwrap(model: Any) -> nn.Module:
    """The model inside DistributedDataParallel, DataParallel and torch.compile."""
    if not isinstance(model, nn.Module):
        raise InputError(f"model: got {type(model).__name__}, expected an nn.Module")
    while True:
        if isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
            model = model.module
        elif hasattr(model, "_orig_mod"):
            model = model._orig_mod
        else:
            break
    sharded = {"FullyShardedDataParallel", "FSDPModule"}
    if any(cls.__name__ in sharded for module in model.modules() for cls in type(module).__mro__):
        raise InputError("model: got parameters sharded by FSDP, expected a whole model; gather its weights first")
    if any(parameter.is_meta for parameter in model.parameters()):
        raise InputError(
            "model: got parameters that are not in memory (offloaded, or not loaded yet), expected them there"
        )
    return model


def uncompiled() -> AbstractContextManager[Any]:
    """Within it compiled modules run uncompiled: hooks and replaced attributes would recompile them, or be ignored."""
    return torch.compiler.set_stance("force_eager")


def gates(model: nn.Module) -> dict[int, Tensor]:
    """``sigmoid(gating_param)``, ``(h,)``, of every GPSA layer by its number; no forward pass is needed."""
    return {layer.index: gates for layer in attention_layers(model) if (gates := layer.gates) is not None}


def position_weights(model: nn.Module) -> dict[int, Tensor]:
    """``v_pos``, ``(h, 3)``, of every layer that has one by its number: what ``centres`` and ``spans`` take."""
    return {layer.index: weight for layer in attention_layers(model) if (weight := layer.position_weight) is not None}
