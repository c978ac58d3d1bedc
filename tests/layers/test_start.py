"""The convolutional start: as published for square head counts, one centre per head for all others."""

import itertools

import pytest
import torch
from timm.models.convit import GPSA as TimmGPSA
from torch import Tensor, nn

from convit import GPSA
from convit.layers import Block, PositionalSelfAttention, SelfAttention
from convit.layers.init import convolutional_pos_weight, head_centres, start_weights


@pytest.mark.parametrize("strength", [1.0, 0.1])
@pytest.mark.parametrize("heads", [1, 4, 9, 16, 25])
def test_square_head_counts_start_as_published(heads: int, strength: float) -> None:
    theirs = TimmGPSA(dim=2 * heads, num_heads=heads, locality_strength=strength)
    theirs.local_init()
    ours = GPSA(dim=2 * heads, num_heads=heads, locality_strength=strength)
    assert torch.equal(ours.pos_proj.weight, theirs.pos_proj.weight)
    assert torch.equal(ours.v.weight, theirs.v.weight)
    assert torch.equal(ours.gating_param, theirs.gating_param)


HAND_WRITTEN_CENTRES = {
    2: [(0, 0), (1, 0)],
    3: [(0, 0), (1, 0), (-1, 0)],
    5: [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)],
    6: [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (1, 1)],
    8: [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (-1, 1)],
    # A square number: cell (ix, iy) of the 3 x 3 kernel is head iy + 3 ix.
    9: [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 0), (0, 1), (1, -1), (1, 0), (1, 1)],
}


@pytest.mark.parametrize("heads", HAND_WRITTEN_CENTRES)
def test_centres_by_hand(heads: int) -> None:
    assert [tuple(centre) for centre in head_centres(heads).tolist()] == HAND_WRITTEN_CENTRES[heads]


@pytest.mark.parametrize("heads", [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 20, 37])
def test_every_head_has_its_own_centre(heads: int) -> None:
    centres = head_centres(heads)
    assert centres.shape == (heads, 2)
    assert len({tuple(centre) for centre in centres.tolist()}) == heads
    assert torch.equal(centres, head_centres(heads))


@pytest.mark.parametrize("heads", [2, 3, 5, 6, 7, 8, 10, 12, 15, 20, 24, 37])
def test_other_head_counts_take_the_nearest_cells(heads: int) -> None:
    chosen = sorted(x * x + y * y for x, y in head_centres(heads).tolist())
    cells = sorted(x * x + y * y for x, y in itertools.product(range(-9, 10), repeat=2))
    assert chosen == cells[:heads]


@pytest.mark.parametrize("heads", [3, 4, 6, 9])
def test_weights_put_the_peak_at_the_centre(heads: int) -> None:
    strength = 0.7
    weight, centres = convolutional_pos_weight(heads, strength), head_centres(heads)
    offset = torch.randn(50, 2)
    logits = torch.cat((offset, offset.square().sum(-1, keepdim=True)), dim=-1) @ weight.T
    expected = -strength * ((offset[:, None] - centres).square().sum(-1) - centres.square().sum(-1))
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-5)


def test_no_heads() -> None:
    with pytest.raises(ValueError, match="num_heads: got 0, expected at least 1"):
        head_centres(0)


def looks_like_the_usual_start(weight: Tensor) -> bool:
    """A normal of 0.02 (cut at 2, which is never reached)."""
    return 0.015 < weight.std() < 0.025 and weight.abs().max() < 0.12


@pytest.mark.parametrize("layer_class", [GPSA, PositionalSelfAttention])
def test_each_weight_has_its_start(layer_class: type[nn.Module]) -> None:
    layer = layer_class(dim=64, num_heads=16, qkv_bias=True)
    assert torch.equal(layer.v.weight, torch.eye(64))
    assert looks_like_the_usual_start(layer.qk.weight)
    assert looks_like_the_usual_start(layer.proj.weight)
    for linear in (layer.qk, layer.v, layer.proj, layer.pos_proj):
        assert not linear.bias.any()


@pytest.mark.parametrize("layer_class", [GPSA, PositionalSelfAttention])
def test_without_the_convolutional_start(layer_class: type[nn.Module]) -> None:
    layer = layer_class(dim=64, num_heads=64, conv_init=False)
    assert looks_like_the_usual_start(layer.v.weight)
    assert looks_like_the_usual_start(layer.pos_proj.weight)


def test_plain_attention_has_the_usual_start() -> None:
    layer = SelfAttention(dim=64, num_heads=2)
    assert looks_like_the_usual_start(layer.qkv.weight)
    assert looks_like_the_usual_start(layer.proj.weight)


def test_gate_starts_where_asked() -> None:
    assert GPSA(dim=8, num_heads=4).gates.tolist() == pytest.approx([0.7310586] * 4)
    assert GPSA(dim=8, num_heads=4, gate_init=-2.0).gating_param.tolist() == [-2.0] * 4


def test_reset_parameters_starts_anew() -> None:
    layer = GPSA(dim=8, num_heads=4, gate_init=0.5)
    pos_weight, qk = layer.pos_proj.weight.detach().clone(), layer.qk.weight.detach().clone()
    nn.init.constant_(layer.gating_param, 7.0)
    nn.init.constant_(layer.pos_proj.weight, 7.0)
    layer.reset_parameters()
    assert torch.equal(layer.pos_proj.weight, pos_weight)
    assert layer.gating_param.tolist() == [0.5] * 4
    assert not torch.equal(layer.qk.weight, qk)


def test_convolutions_keep_their_own_start() -> None:
    convolution, norm = nn.Conv2d(3, 4, 2), nn.LayerNorm(4)
    before = convolution.weight.detach().clone()
    nn.init.constant_(norm.weight, 7.0)
    for module in (convolution, norm):
        start_weights(module)
    assert torch.equal(convolution.weight, before)
    assert norm.weight.tolist() == [1.0] * 4


def test_weights_that_keep_the_variance_of_their_input() -> None:
    torch.manual_seed(0)
    block = Block(144, GPSA(dim=144, num_heads=9, weight_std="fan_in"), weight_std="fan_in")
    for linear in (block.attn.qk, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
        # A normal cut at 2 (in weights, not in deviations) is hardly cut at all here.
        assert linear.weight.std().item() == pytest.approx(linear.in_features**-0.5, rel=0.03)
    assert torch.equal(block.attn.v.weight, torch.eye(144))
    assert torch.equal(block.attn.pos_proj.weight, convolutional_pos_weight(9))
    random = GPSA(dim=144, num_heads=9, conv_init=False, weight_std="fan_in")
    assert random.v.weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert random.pos_proj.weight.abs().max() < 0.1  # position hardly counts, as in the paper's rows c and d
