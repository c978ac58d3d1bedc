"""Parts of a trained model switched off, as context managers (tables 5 and 6 of the paper).

Inside, a parameter of a module is replaced by another, frozen one; afterwards, also after an error, the module has the
original object again, with unchanged values. The managers can be nested: the innermost counts. Do not train, move, load
or save the model inside: this would apply to the replacements.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from convit.analysis.attention_layers import attention_layers, uncompiled, unwrap
from convit.analysis.layer import AttentionLayer, replaced
from convit.errors import InputError, brief


@contextmanager
def without_position_embedding(model: nn.Module) -> Iterator[None]:
    """The absolute position embedding is zero, as in table 5; for our models and timm's ConViT, ViT and DeiT.

    This includes the embedding of the class token, if the model has one. The relative positions of GPSA are kept.

    Raises:
        InputError: the model has no position embedding.

    Example:
        >>> from convit import ConViT
        >>> model = ConViT(img_size=16, patch_size=4, embed_dim=8, depth=2, num_heads=4, local_up_to_layer=1)
        >>> with without_position_embedding(model):
        ...     model.pos_embed.any().item()
        False
        >>> model.pos_embed.any().item()
        True
    """
    network = unwrap(model)
    for module in network.modules():
        embedding = module._parameters.get("pos_embed")
        if embedding is not None and hasattr(module, "patch_embed"):
            break
    else:
        raise InputError(
            f"model: got {type(network).__name__} without pos_embed, expected one with position embeddings"
        )
    with uncompiled(), replaced(module._parameters, "pos_embed", _frozen(torch.zeros_like(embedding))):
        yield


@contextmanager
def masked(
    model: nn.Module, *, content: int | Iterable[int] = (), position: int | Iterable[int] = ()
) -> Iterator[None]:
    """One kind of attention is off in some GPSA layers, as in table 6.

    Without content every gate is exactly 1: the heads attend to fixed offsets, like a convolution. Without position
    every gate is exactly 0: plain self-attention. A class token has no position and always attends by content.

    Args:
        model: our model or timm's ConViT.
        content: the layers without content attention: n for the first n, or their numbers.
        position: the layers without positional attention, likewise.

    Raises:
        InputError: a layer that has no gates, or one in both.

    Example:
        >>> from convit import ConViT
        >>> from convit.analysis import gates
        >>> model = ConViT(img_size=16, patch_size=4, embed_dim=8, depth=3, num_heads=4, local_up_to_layer=2)
        >>> with masked(model, content=1, position=[1]):
        ...     gates(model)
        {0: tensor([1., 1., 1., 1.]), 1: tensor([0., 0., 0., 0.])}
        >>> gates(model)[0]
        tensor([0.7311, 0.7311, 0.7311, 0.7311])
    """
    gated = _gated(model)
    off = {name: _layer_numbers(name, layers, gated) for name, layers in (("content", content), ("position", position))}
    if both := sorted(off["content"] & off["position"]):
        raise InputError(f"content, position: got layers {both} in both, expected each in one: nothing would be left")
    values = dict.fromkeys(off["content"], 1.0) | dict.fromkeys(off["position"], 0.0)
    with gates_set(model, {layer: dict.fromkeys(range(gated[layer].num_heads), v) for layer, v in values.items()}):
        yield


@contextmanager
def gates_set(model: nn.Module, values: Mapping[int, Mapping[int, float]]) -> Iterator[None]:
    """Some gates have a value set by hand; the others keep theirs.

    0 (content alone) and 1 (position alone) are exact; other values as near as the type of ``gating_param`` allows.

    Args:
        model: our model or timm's ConViT.
        values: ``{layer: {head: value}}``, values from 0 to 1.

    Raises:
        InputError: a model without gates, a layer or head that is not there, a value outside 0 to 1.

    Example:
        >>> from convit import ConViT
        >>> from convit.analysis import gates
        >>> model = ConViT(img_size=16, patch_size=4, embed_dim=8, depth=2, num_heads=4, local_up_to_layer=1)
        >>> with gates_set(model, {0: {2: 0.25, 3: 0.0}}):
        ...     gates(model)
        {0: tensor([0.7311, 0.7311, 0.2500, 0.0000])}
    """
    gated = _gated(model)
    if not isinstance(values, Mapping) or not all(isinstance(heads, Mapping) for heads in values.values()):
        raise InputError(f"values: got {brief(values)}, expected {{layer: {{head: value}}}}")
    _layer_numbers("values", values, gated)
    changes = [(gated[layer], _with_gates(gated[layer], heads)) for layer, heads in values.items()]
    with ExitStack() as stack:
        stack.enter_context(uncompiled())
        for layer, gating_param in changes:
            stack.enter_context(replaced(layer.module._parameters, "gating_param", gating_param))
        yield


def _gated(model: nn.Module) -> dict[int, AttentionLayer]:
    """The layers with gates, by their numbers."""
    gated = {layer.index: layer for layer in attention_layers(model) if layer.kind == "gpsa"}
    if not gated:
        raise InputError(f"model: got {type(unwrap(model)).__name__} without a GPSA layer, expected one with gates")
    return gated


def _layer_numbers(name: str, layers: int | Iterable[int], gated: Mapping[int, AttentionLayer]) -> set[int]:
    """The first n for a number, or the numbers given; all of them have gates."""
    if not isinstance(layers, int | Iterable) or isinstance(layers, bool) or (isinstance(layers, int) and layers < 0):
        raise InputError(f"{name}: got {brief(layers)}, expected a number of layers from 0 to {len(gated)}")
    wanted = set(range(layers)) if isinstance(layers, int) else set(layers)
    if unknown := sorted(wanted - gated.keys()):
        raise InputError(f"{name}: got layers {unknown}, expected some of {sorted(gated)}, the layers with gates")
    return wanted


def _with_gates(layer: AttentionLayer, values: Mapping[int, float]) -> nn.Parameter:
    """The layer's logits as they are now, with some set so that their sigmoid has the value given."""
    count = layer.num_heads
    if unknown := sorted(set(values) - set(range(count))):
        raise InputError(
            f"values: got heads {unknown}, expected some of 0 to {count - 1}, the heads of layer {layer.index}"
        )
    with torch.inference_mode(False):
        logits = layer.module.gating_param.detach().clone()
        for head, value in values.items():
            if not 0 <= value <= 1:
                raise InputError(f"values: got {value} for head {head} of layer {layer.index}, expected 0 to 1")
            logits[head] = torch.logit(torch.tensor(value, dtype=torch.float64))  # infinite, so exact, at 0 and 1
        return _frozen(logits)


def _frozen(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)
