"""The attention layers of a model, whoever wrote it: ours, timm's ConViT, timm's plain attention."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from timm.models.convit import GPSA, MHSA
from timm.models.vision_transformer import Attention
from torch import Tensor, nn

from convit.errors import InputError
from convit.layers import GatedPositionalSelfAttention, PositionalSelfAttention, SelfAttention
from convit.ops import naive


@dataclass(frozen=True, eq=False)
class AttentionLayer:
    """An attention module that this package knows, and the block that holds it."""

    index: int
    kind: str
    module: Any
    block: nn.Module


# In this order: a gated layer is a positional one too.
_KINDS: dict[type[nn.Module], str] = {
    GatedPositionalSelfAttention: "gpsa",
    PositionalSelfAttention: "psa",
    SelfAttention: "sa",
    GPSA: "gpsa",
    MHSA: "sa",
    Attention: "sa",
}


def attention_layers(model: nn.Module) -> tuple[AttentionLayer, ...]:
    """Every attention layer of a known kind, in the order in which the model holds them.

    Raises:
        InputError: none, not a module, or parameters that are sharded over processes.
    """
    network = unwrap(model)
    found: list[AttentionLayer] = []
    for name, module in network.named_modules():
        for cls, kind in _KINDS.items():
            if isinstance(module, cls):
                block = network.get_submodule(name.rpartition(".")[0])
                found.append(AttentionLayer(len(found), kind, module, block))
                break
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
    return model


def uncompiled() -> AbstractContextManager[Any]:
    """Compiled code runs as it was written: hooks and replaced attributes would compile it anew, or go unnoticed."""
    return torch.compiler.set_stance("force_eager")


@contextmanager
def replaced(where: dict[str, Any], name: str, value: object) -> Iterator[None]:
    """Another value in a dictionary, put back as it was, or gone if it was not there."""
    missing = object()
    before = where.get(name, missing)
    where[name] = value
    try:
        yield
    finally:
        if before is missing:
            where.pop(name, None)
        else:
            where[name] = before


def gates(model: nn.Module) -> dict[int, Tensor]:
    """``sigmoid(gating_param)``, ``(h,)``, of every GPSA layer by its number; no forward pass is needed."""
    return {layer.index: gate_of(layer.module) for layer in attention_layers(model) if layer.kind == "gpsa"}


def position_weights(model: nn.Module) -> dict[int, Tensor]:
    """``v_pos``, ``(h, 3)``, of every layer that has one by its number: what ``centres`` and ``spans`` take."""
    return {
        layer.index: layer.module.pos_proj.weight.detach().clone()
        for layer in attention_layers(model)
        if layer.kind != "sa"
    }


def gate_of(module: Any) -> Tensor:
    """The weight of positional attention in each head of a GPSA module, ``(h,)``."""
    logits = module.gating_param.detach()
    return torch.sigmoid(logits.to(naive.compute_dtype(logits.dtype)))
