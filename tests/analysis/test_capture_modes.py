"""A model is captured in whatever mode, type and wrapper it is, and left as it was."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from convit import InputError
from convit.analysis import capture
from convit.layers import GatedPositionalSelfAttention, PositionalSelfAttention
from tests.analysis.models import images, ours, same_weights, sped_up, state, timms, vit
from tests.helpers import relative_error


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_put_back(case: tuple[nn.Module, Tensor, tuple[int, int]], fails: bool) -> None:
    model, x, _ = case
    model.train()
    model.blocks[1].eval()  # each module has its own mode
    if fails:
        model.head.register_forward_pre_hook(lambda *_: 1 // 0)
    before, weights, random = state(model), copy.deepcopy(model.state_dict()), torch.get_rng_state()
    with pytest.raises(ZeroDivisionError) if fails else nullcontext():
        capture(model, x, keep_graph=True)
    assert state(model) == before
    assert same_weights(model, weights)
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.is_grad_enabled()


def test_evaluation_whatever_the_mode() -> None:
    model = ours(drop_rate=0.5, pos_drop_rate=0.5, proj_drop_rate=0.5, attn_drop_rate=0.5, drop_path_rate=0.5)
    x = images((16, 16))
    expected = capture(model, x)
    got = capture(model.train(), x)
    assert torch.equal(got.logits, expected.logits)
    assert all(torch.equal(a.mixed, b.mixed) for a, b in zip(got.layers, expected.layers, strict=True))


@pytest.mark.parametrize("build", [ours, timms, sped_up, vit])
def test_bf16(build: Callable[[], nn.Module]) -> None:
    x = images((32, 48) if build is vit else (48, 48))
    model = build()
    expected = capture(model, x)
    got = capture(model.bfloat16(), x.bfloat16())
    assert got.logits.dtype == torch.bfloat16
    with torch.no_grad():
        assert relative_error(got.logits, model(x.bfloat16())) < 0.05
    assert (got.layers[0].mixed - expected.layers[0].mixed).abs().max() < 0.05
    assert got.layers[0].mixed.dtype == (torch.float32 if build is ours else torch.bfloat16)


def test_autocast() -> None:
    model, x = ours(), images((16, 16))
    expected = capture(model, x)
    with torch.autocast("cpu", torch.bfloat16):
        got = capture(model, x)
    assert torch.equal(got.layers[0].positional, expected.layers[0].positional)
    assert (got.layers[0].mixed - expected.layers[0].mixed).abs().max() < 0.05


@pytest.mark.parametrize("keep_graph", [False, True])
def test_the_graph_is_there_when_asked_for(case: tuple[nn.Module, Tensor, tuple[int, int]], keep_graph: bool) -> None:
    model, x, _ = case
    model.requires_grad_(False)
    with torch.no_grad() if keep_graph else torch.enable_grad():
        shot = capture(model, x, keep_graph=keep_graph)
    assert shot.logits.requires_grad == keep_graph
    assert not x.requires_grad
    if keep_graph:
        maps = [layer.mixed for layer in shot.layers]
        assert all(g is not None and g.any() for g in torch.autograd.grad(shot.logits[:, 0].sum(), maps))
        assert all(p.grad is None for p in model.parameters())


def test_inference_mode_and_checkpointing() -> None:
    model, x = vit(), images((32, 48))
    model.set_grad_checkpointing()
    with torch.inference_mode():
        shot = capture(model, x.clone(), keep_graph=True)  # an image that is an inference tensor
        plain = capture(model, x)
    assert torch.equal(plain.logits, shot.logits.detach())
    assert model.grad_checkpointing
    assert torch.autograd.grad(shot.logits.sum(), shot.layers[0].mixed)[0].any()


@pytest.mark.parametrize("build", [ours, timms, vit])
def test_data_parallel_and_compiled_models(build: Callable[[], nn.Module]) -> None:
    model, x = build(), images((32, 48) if build is vit else (48, 48))
    expected = capture(model, x)
    compilations: list[int] = []

    def backend(graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> Callable[..., Any]:
        compilations.append(1)
        return graph.forward

    compiled = torch.compile(copy.deepcopy(model), backend=backend)
    in_place = copy.deepcopy(model)
    for block in in_place.blocks:
        block.compile(backend=backend)
    with torch.no_grad():
        for _ in range(2):  # before any hook is there; timm's ConViT compiles twice, as it caches positions
            compiled(x)
            in_place(x)
    count = len(compilations)
    assert count > 0
    for wrapped in (nn.DataParallel(model), compiled, in_place):
        for _ in range(2):
            got = capture(wrapped, x)
            assert torch.equal(got.logits, expected.logits)
            assert torch.equal(got.layers[1].mixed, expected.layers[1].mixed)
    assert len(compilations) == count
    with torch.no_grad():
        compiled(x)
        in_place(x)
    assert len(compilations) == count  # what was compiled is still good


def test_a_layer_in_ones_own_model() -> None:
    class Mine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn = GatedPositionalSelfAttention(8, num_heads=4)
            self.more = nn.ModuleList([PositionalSelfAttention(8, num_heads=2)])

        def forward(self, x: Tensor) -> Tensor:
            tokens = x.flatten(2).transpose(1, 2)
            return self.more[0](self.attn(tokens, grid=(2, 3)), grid=(2, 3)).mean(1)

    with pytest.raises(InputError, match=r"got layers that ran not once but \{1: 0\}"):
        capture(Mine(), torch.randn(2, 8, 2, 3))  # a ModuleList is no block: it is never called
    (layer,) = capture(Mine(), torch.randn(2, 8, 2, 3), layers=[0]).layers
    assert (layer.kind, layer.grid, layer.hidden.shape) == ("gpsa", (2, 3), (2, 8))
