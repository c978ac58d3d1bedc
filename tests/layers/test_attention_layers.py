"""The layers: fast form against naive form through the module, prefix tokens, dropout, devices and types."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from timm.models.convit import MHSA as TimmMHSA
from torch import nn

from convit import GPSA, ops
from convit.layers import Block, PositionalSelfAttention, SelfAttention
from tests.helpers import randomise, relative_error
from tests.layers.subjects import results

LAYERS = [SelfAttention, PositionalSelfAttention, GPSA]
POSITIONAL = [PositionalSelfAttention, GPSA]
layers = pytest.mark.parametrize("layer_class", LAYERS)
positional_layers = pytest.mark.parametrize("layer_class", POSITIONAL)


def draw(layer_class: type[nn.Module], **keywords: object) -> nn.Module:
    """A layer of 3 heads, width 15, every weight at random, in fp64."""
    return randomise(layer_class(15, 3, **keywords)).double()


@pytest.mark.parametrize("prefix", [0, 2])
@pytest.mark.parametrize("grid", [(3, 5), (1, 7), (4, 4)])
@positional_layers
def test_output_and_gradients_are_those_of_the_naive_form(
    layer_class: type[nn.Module], grid: tuple[int, int], prefix: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = draw(layer_class, qkv_bias=True)
    args = torch.randn(2, prefix + grid[0] * grid[1], 15, dtype=torch.float64), grid, prefix
    fast = results(layer, args)
    name = "gated_attention" if layer_class is GPSA else "positional_attention"
    monkeypatch.setattr(ops, name, partial(getattr(ops, name), backend="naive"))
    slow = results(layer, args)

    for found in (fast, slow):
        assert not found.pop("pos_proj.bias").any()  # it cancels, yet has a gradient, which is zero: DDP wants one
    # The half of qk.bias that belongs to the keys cancels too, all but rounding.
    for got, wanted in zip(fast.pop("qk.bias").chunk(2), slow.pop("qk.bias").chunk(2), strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-11, rtol=1e-10)
    expected = {"output", "input", "qk.weight", "v.weight", "v.bias", "proj.weight", "proj.bias", "pos_proj.weight"}
    assert set(fast) == expected | ({"gating_param"} if layer_class is GPSA else set())
    for key, value in fast.items():
        assert relative_error(value, slow[key]) < 1e-10, key


@positional_layers
def test_bias_of_pos_proj_changes_nothing(layer_class: type[nn.Module]) -> None:
    layer = draw(layer_class)
    x = torch.randn(2, 7, 15, dtype=torch.float64)
    before = layer(x, (2, 3), 1)
    nn.init.normal_(layer.pos_proj.bias, std=100)
    assert torch.equal(layer(x, (2, 3), 1), before)


def test_plain_attention_is_timms() -> None:
    theirs = randomise(TimmMHSA(15, 3, qkv_bias=True)).double()
    ours = SelfAttention(15, 3, qkv_bias=True).double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(2, 7, 15, dtype=torch.float64)
    assert relative_error(ours(x), theirs(x)) < 1e-12
    assert torch.equal(ours(x, (2, 3), 1), ours(x))


def test_prefix_rows_are_content_attention() -> None:
    layer = draw(GPSA)
    x = torch.randn(2, 2 + 15, 15, dtype=torch.float64)
    q, k, v = layer.project(x)
    content = layer.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
    out = layer(x, (3, 5), num_prefix_tokens=2)
    torch.testing.assert_close(out[:, :2], content[:, :2], atol=1e-13, rtol=0)
    assert (out[:, 2:] - content[:, 2:]).abs().max() > 1e-2


@positional_layers
def test_square_without_a_grid_and_errors_without_one(layer_class: type[nn.Module]) -> None:
    layer = draw(layer_class)
    x = torch.randn(1, 9, 15, dtype=torch.float64)
    assert torch.equal(layer(x), layer(x, (3, 3)))
    assert not torch.allclose(layer(x), layer(x, (1, 9)))
    with pytest.raises(ValueError, match="got 6 patch tokens, which is no square number"):
        layer(x[:, :6])
    with pytest.raises(ValueError, match="got 9 patch tokens for a grid of 2 x 4 = 8"):
        layer(x, (2, 4))


@layers
def test_attention_dropout_is_for_training(layer_class: type[nn.Module]) -> None:
    layer = draw(layer_class, attn_drop=0.5)
    without = draw(layer_class)
    without.load_state_dict(layer.state_dict())
    x = torch.randn(2, 6, 15, dtype=torch.float64)
    assert not torch.equal(layer(x, (2, 3)), layer(x, (2, 3)))
    torch.testing.assert_close(layer.eval()(x, (2, 3)), without(x, (2, 3)), atol=1e-14, rtol=0)


@layers
def test_output_dropout_is_for_training(layer_class: type[nn.Module]) -> None:
    layer = draw(layer_class, proj_drop=0.5)
    x = torch.randn(2, 6, 15, dtype=torch.float64)
    assert 0.2 < (layer(x, (2, 3)) == 0).double().mean() < 0.8
    assert (layer.eval()(x, (2, 3)) != 0).all()


@layers
def test_device_and_type_keywords(layer_class: type[nn.Module]) -> None:
    layer = layer_class(15, 3, qkv_bias=True, device="meta", dtype=torch.bfloat16)
    assert {(p.device.type, p.dtype) for p in layer.parameters()} == {("meta", torch.bfloat16)}
    x = torch.empty(2, 6, 15, device="meta", dtype=torch.bfloat16)
    assert layer(x, (2, 3)).shape == x.shape
    # A move takes everything along: nothing is left behind in a buffer.
    moved = layer_class(15, 3).to(torch.float64)
    assert moved(torch.randn(2, 6, 15, dtype=torch.float64), (2, 3)).dtype == torch.float64
    assert not list(moved.buffers())


@layers
def test_reset_parameters_leaves_none_out(layer_class: type[nn.Module]) -> None:
    layer = layer_class(12, 4, qkv_bias=True, device="meta").to_empty(device="cpu")
    for parameter in layer.parameters():
        nn.init.constant_(parameter, 7.0)
    layer.reset_parameters()
    for name, parameter in layer.named_parameters():
        assert not (parameter == 7).any(), name


@layers
@pytest.mark.parametrize(("dim", "heads", "nearest"), [(15, 4, 3), (15, 0, 1), (12, 5, 4), (8, 100, 8)])
def test_heads_that_do_not_divide_the_width(layer_class: type[nn.Module], dim: int, heads: int, nearest: int) -> None:
    message = f"num_heads: got {heads} for a width of {dim}, expected a divisor of the width, such as {nearest}$"
    with pytest.raises(ValueError, match=message):
        layer_class(dim, heads)


@layers
def test_block_is_two_residual_branches(layer_class: type[nn.Module]) -> None:
    block = randomise(Block(15, layer_class(15, 3), mlp_ratio=2.0)).double()
    x = torch.randn(2, 7, 15, dtype=torch.float64)
    halfway = x + block.attn(block.norm1(x), (2, 3), 1)
    expected = halfway + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(halfway))))
    torch.testing.assert_close(block(x, (2, 3), 1), expected, atol=1e-13, rtol=1e-13)
    assert block.mlp.fc1.out_features == 30


def test_block_leaves_out_branches_in_training() -> None:
    block = randomise(Block(15, GPSA(15, 3), drop_path=0.5))
    x = torch.randn(64, 6, 15)
    untouched = (block(x, (2, 3)) == x).flatten(1).all(1).double().mean()
    assert 0.05 < untouched < 0.5  # both branches of a sample are left out with probability 1/4
    assert (block.eval()(x, (2, 3)) != x).any(-1).all()


@pytest.mark.parametrize("shape", [(3, 36), (2, 36, 4, 4), (2, 16, 35)])
@layers
def test_tokens_of_another_shape_are_refused(layer_class: type[nn.Module], shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"x: got shape .*, expected \(B, P \+ N, 36\)"):
        layer_class(36, 9)(torch.randn(shape))


@layers
def test_no_images_give_no_tokens(layer_class: type[nn.Module]) -> None:
    assert layer_class(36, 9)(torch.randn(0, 16, 36)).shape == (0, 16, 36)
