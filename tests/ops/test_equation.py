"""The naive form against numbers by hand, timm's own layer, and what must hold of any attention map."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.models.convit import GPSA as TimmGPSA
from torch import Tensor

from convit import GPSA
from convit.grid import Grid
from convit.ops import gated_attention, naive, positional_attention
from tests.helpers import randomise, relative_error

BACKENDS = ("auto", "factorized", "naive")  # triton has no fp64; test_triton.py holds it to these

LN2, LN3, LN6 = math.log(2), math.log(3), math.log(6)

# Two patches side by side (or one above the other), one head of width 1, gate sigmoid(-ln 3) = 1/4, and before them
# perhaps a prefix token with q = k = 0 and v = 7.
#   v_pos = (ln 6, ., -ln 2):  query 0 sees key 1 at d = +1: logits (0, ln 6 - ln 2 = ln 3)      -> 1/4, 3/4
#                              query 1 sees key 0 at d = -1: logits (-ln 6 - ln 2 = -ln 12, 0)   -> 1/13, 12/13
#   q = (ln 3, 0), k = (1, 0): content of query 0: logits (ln 3, 0)                              -> 3/4, 1/4
#                              content of query 1: logits (0, 0)                                 -> 1/2, 1/2
# GPSA: row 0 is 3/4 (3/4, 1/4) + 1/4 (1/4, 3/4) = (5/8, 3/8);  row 1 is 3/4 (1/2, 1/2) + 1/4 (1/13, 12/13)
#       = (41, 63) / 104;  with v = (2, 10) the output is (10 + 30) / 8 = 5 and (82 + 630) / 104 = 89 / 13.
# PSA:  row 0 has logits (ln 3, ln 3) -> 1/2, 1/2 -> 6;  row 1 has (-ln 12, 0) -> 1/13, 12/13 -> 122 / 13.
# With the prefix token, content has one more logit 0: query 0 (1/5, 3/5, 1/5), query 1 and the prefix 1/3 each.
# GPSA: row 0 is 3/4 (1/5, 3/5, 1/5) + 1/4 (0, 1/4, 3/4) = (12, 41, 27) / 80 -> 436 / 80;
#       row 1 is (1/4, 1/4 + 1/52, 1/4 + 12/52) = (13, 14, 25) / 52 -> 369 / 52;  the prefix itself 19 / 3.
# PSA:  row 0 has logits (0, ln 3, ln 3) -> (1, 3, 3) / 7 -> 43 / 7;
#       row 1 has (0, -ln 12, 0) -> (12, 1, 12) / 25 -> 206 / 25;  the prefix itself 19 / 3.
GOLDEN = {
    (0, True): [5, 89 / 13],
    (0, False): [6, 122 / 13],
    (1, True): [19 / 3, 436 / 80, 369 / 52],
    (1, False): [19 / 3, 43 / 7, 206 / 25],
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("grid", [(1, 2), (2, 1)])
@pytest.mark.parametrize(("prefix", "gated"), list(GOLDEN))
def test_golden_values(prefix: int, gated: bool, grid: tuple[int, int], backend: str) -> None:
    def token(*values: float) -> Tensor:
        return torch.tensor(values[1 - prefix :], dtype=torch.float64).view(1, 1, -1, 1)

    q, k, v = token(0, LN3, 0), token(0, 1, 0), token(7, 2, 10)
    # The other axis has one patch: whatever its weight is, it must not matter.
    along = [LN6, 17.0] if grid == (1, 2) else [17.0, LN6]
    pos_weight = torch.tensor([[*along, -LN2]], dtype=torch.float64)
    gate = torch.tensor([-LN3], dtype=torch.float64)
    if gated:
        out = gated_attention(q, k, v, gate, pos_weight, grid, prefix, backend=backend)
    else:
        out = positional_attention(q, k, v, pos_weight, grid, prefix, backend=backend)
    assert out.flatten().tolist() == pytest.approx(GOLDEN[prefix, gated], rel=1e-14)


@pytest.mark.parametrize(("side", "dim", "heads"), [(3, 6, 2), (5, 36, 9), (4, 16, 4)])
def test_naive_is_timms_layer(side: int, dim: int, heads: int) -> None:
    theirs = randomise(TimmGPSA(dim, heads, qkv_bias=True)).double()
    ours = GPSA(dim, heads, qkv_bias=True).double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(2, side * side, dim, dtype=torch.float64)
    expected = theirs(x)

    out, maps = naive.gated_attention(*ours.project(x), ours.gating_param, ours.pos_proj.weight, Grid(side, side))
    assert relative_error(maps.mixed, theirs.get_attention(x)) < 1e-12
    assert relative_error(ours.proj(out.transpose(1, 2).flatten(2)), expected) < 1e-12
    # pos_proj's bias was drawn at random too: it is in their sum, not in ours, and cancels.
    assert theirs.pos_proj.bias.abs().min() > 0
    assert relative_error(ours(x), expected) < 1e-12


@st.composite
def problems(draw: st.DrawFn) -> tuple[Grid, int, Tensor, Tensor, Tensor, Tensor]:
    """A grid, a number of prefix tokens, q, k, gates and positional weights."""
    grid = Grid(draw(st.integers(1, 6)), draw(st.integers(1, 6)))
    prefix, heads = draw(st.integers(0, 2)), draw(st.integers(1, 3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    tokens = prefix + grid.num_patches
    return grid, prefix, normal(2, heads, tokens, 5), normal(2, heads, tokens, 5), normal(heads), normal(heads, 3)


@given(problems())
def test_rows_of_every_map_sum_to_one(problem: tuple[Grid, int, Tensor, Tensor, Tensor, Tensor]) -> None:
    grid, prefix, q, k, gate, pos_weight = problem
    _, maps = naive.gated_attention(q, k, q, gate, pos_weight, grid, prefix)
    _, ungated = naive.positional_attention(q, k, q, pos_weight, grid, prefix)
    _, plain = naive.self_attention(q, k, q)
    for attention in (*maps, ungated, plain):
        assert (attention >= 0).all()
        torch.testing.assert_close(attention.sum(-1), torch.ones_like(attention[..., 0]), atol=1e-13, rtol=0)
    assert maps.positional.shape == (q.shape[1], grid.num_patches, grid.num_patches)
    # Prefix tokens have no part in the positional attention, as queries or as keys.
    assert torch.equal(maps.mixed[:, :, :prefix], maps.content[:, :, :prefix])
    open_to_content = (1 - torch.sigmoid(gate))[:, None, None] * maps.content[:, :, prefix:, :prefix]
    assert torch.equal(maps.mixed[:, :, prefix:, :prefix], open_to_content)
    assert torch.equal(plain, maps.content)


@given(problems())
def test_position_is_seen_the_same_from_everywhere(problem: tuple[Grid, int, Tensor, Tensor, Tensor, Tensor]) -> None:
    """log A_ij - log A_ii depends on the offset j - i alone, and mirrors when the axes are exchanged."""
    grid, _, _, _, _, pos_weight = problem
    attention = torch.softmax(naive.positional_logits(pos_weight, grid, torch.float64), dim=-1)
    height, width = grid
    log = attention.log().view(-1, height, width, height, width)
    for y in range(height - 1):
        for x in range(width - 1):
            here, moved = log[:, y, x, :-1, :-1] - log[:, y, x, y, x, None, None], log[:, y + 1, x + 1]
            there = moved[:, 1:, 1:] - moved[:, y + 1, x + 1, None, None]
            torch.testing.assert_close(here, there, atol=1e-11, rtol=0)

    swapped = naive.positional_logits(pos_weight[:, [1, 0, 2]], Grid(width, height), torch.float64)
    swapped = torch.softmax(swapped, dim=-1).view(-1, width, height, width, height)
    torch.testing.assert_close(swapped.permute(0, 2, 1, 4, 3).flatten(1, 2).flatten(2), attention, atol=1e-13, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_constant_logit_cancels(backend: str) -> None:
    """The bias of pos_proj and a query's own constant change nothing: only differences between keys count."""
    q, k, v = torch.randn(3, 1, 2, 6, 4, dtype=torch.float64)
    pos_weight, gate = torch.randn(2, 3, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    attention = torch.softmax(naive.positional_logits(pos_weight, Grid(2, 3), torch.float64) + 11.0, dim=-1)
    content = torch.softmax(q @ k.mT / 2 - 7.0, dim=-1)
    expected = (0.5 * content + 0.5 * attention) @ v
    out = gated_attention(q, k, v, gate, pos_weight, (2, 3), backend=backend)
    torch.testing.assert_close(out, expected, atol=1e-13, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_closed_gates_are_content_and_open_gates_are_position(backend: str) -> None:
    q, k, v = torch.randn(3, 2, 2, 15, 4, dtype=torch.float64)
    pos_weight = torch.randn(2, 3, dtype=torch.float64)
    out = gated_attention(q, k, v, torch.tensor([-50.0, 50.0]), pos_weight, (3, 5), backend=backend)
    content = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    position = torch.softmax(naive.positional_logits(pos_weight, Grid(3, 5), torch.float64), dim=-1) @ v
    torch.testing.assert_close(out[:, 0], content[:, 0], atol=1e-13, rtol=0)
    torch.testing.assert_close(out[:, 1], position[:, 1], atol=1e-13, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_heads_do_not_mix(backend: str) -> None:
    q, k, v = torch.randn(3, 2, 3, 10, 4, dtype=torch.float64)
    gate, pos_weight = torch.randn(3, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64)
    order = [2, 0, 1]
    out = gated_attention(q, k, v, gate, pos_weight, (2, 5), backend=backend)
    mixed = gated_attention(
        q[:, order], k[:, order], v[:, order], gate[order], pos_weight[order], (2, 5), backend=backend
    )
    torch.testing.assert_close(mixed, out[:, order], atol=1e-13, rtol=0)
