"""Hooks on our layers see and change what they would on any attention: maps, gradients, and timm's extraction."""

import copy

import pytest
import torch
from timm.utils import AttentionExtract
from torch import Tensor, nn

from convit.layers import SelfAttention
from tests.helpers import relative_error
from tests.layers.subjects import (
    DIM,
    F64,
    HEADS,
    LAYERS,
    PREFIX,
    TOKENS,
    Arguments,
    assert_close,
    draw,
    layers,
    loss,
    models,
    positional,
    quiet,
    results,
)


def heads_of(x: Tensor) -> Tensor:
    """``(B, T, C)`` to ``(B, h, T, d)``."""
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def values(layer: nn.Module, x: Tensor) -> Tensor:
    """The values of all heads, ``(B, T, C)``."""
    return layer.qkv(x)[..., 2 * DIM :] if isinstance(layer, SelfAttention) else layer.v(x)


@layers
def test_hooks_on_attn_drop_see_the_map_and_its_gradient(name: str) -> None:
    layer, args = draw(name)
    fast, maps, gradients = results(layer, args), [], []
    forward = layer.attn_drop.register_forward_hook(lambda _m, _args, out: maps.append(out))
    assert_close(results(layer, args), fast)
    forward.remove()
    backward = layer.attn_drop.register_full_backward_hook(lambda _m, _in, out: gradients.append(out[0]))
    assert_close(results(layer, args), fast)
    backward.remove()
    assert_close(results(layer, args), fast, 0.0)

    (attention,), (gradient,), value = maps, gradients, heads_of(values(layer, args[0]))
    assert attention.shape == (2, HEADS, TOKENS, TOKENS)
    torch.testing.assert_close(attention.sum(-1), torch.ones(2, HEADS, TOKENS, dtype=F64))
    out = (attention @ value).requires_grad_()
    projected = layer.proj(out.transpose(1, 2).flatten(2))
    torch.testing.assert_close(projected, fast["output"])
    (upstream,) = torch.autograd.grad(loss(projected), out)
    torch.testing.assert_close(gradient, upstream @ value.transpose(-2, -1))


@pytest.mark.parametrize(
    ("name", "points"), [*((name, ["attn_drop"]) for name in LAYERS), ("gpsa", ["content_map", "positional_map"])]
)
def test_map_that_a_hook_returns_is_used(name: str, points: list[str]) -> None:
    """With the identity matrix as its map every token sees itself alone."""
    layer, args = draw(name)
    outputs, handles = [layer(*args)], []

    def identity(_module: nn.Module, _args: Arguments, out: Tensor) -> Tensor:
        return torch.eye(out.shape[-1], dtype=out.dtype).expand_as(out)

    for point in points:
        handles.append(layer.get_submodule(point).register_forward_hook(identity))
        outputs.append(layer(*args))
        assert relative_error(outputs[-1], outputs[-2]) > 1e-3, point
    torch.testing.assert_close(outputs[-1], layer.proj(values(layer, args[0])))
    for handle in handles:
        handle.remove()
    assert torch.equal(layer(*args), outputs[0])


def test_maps_of_gpsa_give_the_mixed_one() -> None:
    layer, args = draw("gpsa")
    seen: list[Tensor] = []
    for module in (layer.content_map, layer.positional_map, layer.attn_drop):
        module.register_forward_hook(lambda _m, _args, out: seen.append(out))
    layer(*args)
    content, positional, mixed = seen
    assert positional.shape == (HEADS, TOKENS - PREFIX, TOKENS - PREFIX)
    gate, expected = layer.gates[:, None, None], content.clone()  # a prefix token attends by content alone
    expected[:, :, PREFIX:] *= 1 - gate
    expected[:, :, PREFIX:, PREFIX:] += gate * positional
    torch.testing.assert_close(mixed, expected)


@quiet  # that no input of pos_proj needs a gradient
@positional
def test_hooks_on_pos_proj(name: str) -> None:
    layer, args = draw(name)
    doubled, calls = copy.deepcopy(layer), []
    doubled.pos_proj.weight.data.mul_(2)
    layer.pos_proj.register_forward_pre_hook(lambda *_: calls.append("before"))
    layer.pos_proj.register_forward_hook(lambda _m, _args, out: 2 * out)
    layer.pos_proj.register_full_backward_hook(lambda *_: calls.append("backward"))
    got, expected = results(layer, args), results(doubled, args)
    expected["pos_proj.weight"] *= 2
    assert_close(got, expected)
    assert set(calls) == {"before", "backward"}


@models
def test_attention_extract_of_timm(name: str) -> None:
    model, args = draw(name)
    before = model(*args)
    maps = AttentionExtract(model, method="hook")(*args)
    sizes = [6, 7] if name == "convit" else [7, 7]  # the class token joins after the GPSA block
    assert {key: tuple(value.shape) for key, value in maps.items()} == {
        f"blocks.{block}.attn.attn_drop": (2, 9, size, size) for block, size in enumerate(sizes)
    }
    for attention in maps.values():
        torch.testing.assert_close(attention.sum(-1), torch.ones_like(attention[..., 0]))
    torch.testing.assert_close(model(*args), before)
