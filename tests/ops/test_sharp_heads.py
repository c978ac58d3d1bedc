"""Heads that look at one patch alone: large logits, tiny weights, and types with few digits."""

import pytest
import torch

from convit import ops
from convit.grid import Grid
from convit.ops import factorized, naive

LINE = Grid(1, 40)


def looking_at(x: float, y: float, strength: float, dtype: torch.dtype) -> torch.Tensor:
    """``pos_weight`` of one head, ``-strength ||d - (x, y)||^2`` up to a constant."""
    return torch.tensor([[2 * x, 2 * y, -1.0]], dtype=dtype) * strength


@pytest.mark.parametrize("backend", ["factorized", "naive"])
@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_position_is_computed_in_fp32(dtype: torch.dtype, backend: str, gated: bool, autocast: bool) -> None:
    # The head looks 25 patches to the right. Its logits, 50 d - d^2, reach 625, where bf16 has steps of 4: it cannot
    # tell 625 from its neighbours' 624, and spreads over five patches what belongs to three.
    pos_weight = looking_at(25, 0, strength=1.0, dtype=dtype)
    logits = naive.positional_logits(pos_weight, LINE, torch.float64)
    assert logits[0, 0].max() == 625
    exact = torch.softmax(logits, dim=-1)

    # Values that are one-hot, and queries of 0, make the output the map itself.
    v = torch.eye(40, dtype=dtype)[None, None]
    nothing = torch.zeros_like(v)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        if gated:
            gate = torch.tensor([50.0], dtype=dtype)
            out = ops.gated_attention(nothing, nothing, v, gate, pos_weight, LINE, backend=backend)
        else:
            out = ops.positional_attention(nothing, nothing, v, pos_weight, LINE, backend=backend)
    assert (out[0, 0] - exact[0]).abs().max() < 4e-3  # one rounding to bf16 of a weight of at most 1

    computed_in_bf16 = torch.softmax(logits.bfloat16(), dim=-1)
    assert (computed_in_bf16 - exact).abs().max() > 0.1  # so that the test can tell


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("gated", [True, False], ids=["gated", "ungated"])
@pytest.mark.parametrize("grid", [Grid(1, 40), Grid(9, 9), Grid(11, 4)])
def test_sharp_heads_stay_finite(grid: Grid, gated: bool, dtype: torch.dtype) -> None:
    q, k, v = torch.randn(3, 1, 1, grid.num_patches, 4, dtype=dtype).unbind()
    pos_weight = looking_at(1, -1, strength=50.0, dtype=dtype).requires_grad_()
    gate = torch.ones(1, dtype=dtype, requires_grad=True)
    if gated:
        out = ops.gated_attention(q, k, v, gate, pos_weight, grid)
    else:
        out = ops.positional_attention(q, k, v, pos_weight, grid)
    out.float().square().sum().backward()
    assert out.isfinite().all()
    assert pos_weight.grad.isfinite().all()
    assert not gated or gate.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_sharp_heads_hold_no_denormal_numbers(dtype: torch.dtype) -> None:
    # Strengths from blunt to sharp, so that some weight of some row falls into the denormal range.
    strength = torch.logspace(-2, 2, 401, dtype=dtype)
    attention = factorized.axis_attention(torch.zeros_like(strength), -strength, 40)
    tiny = torch.finfo(dtype).tiny

    plain = torch.softmax(-strength[:, None, None] * torch.arange(40, dtype=dtype) ** 2, dim=-1)
    assert ((plain > 0) & (plain < tiny)).any()  # so that the test can tell
    assert not ((attention > 0) & (attention < tiny)).any()
    # Nothing that counts is dropped.
    torch.testing.assert_close(attention.sum(-1), torch.ones(401, 40, dtype=dtype))


@pytest.mark.parametrize("backend", ["factorized", "naive"])
def test_a_sharp_head_copies_its_patch(backend: str) -> None:
    grid = Grid(3, 5)
    q = k = torch.zeros(1, 1, 15, 2)
    v = torch.randn(1, 1, 15, 2)
    pos_weight = looking_at(-1, 1, strength=50.0, dtype=torch.float32)  # one to the left, one down
    out = ops.gated_attention(q, k, v, torch.tensor([50.0]), pos_weight, grid, backend=backend)
    source = v.view(3, 5, 2)
    assert torch.equal(out.view(3, 5, 2)[:-1, 1:], source[1:, :-1])
    # A patch at the border sees the nearest one that there is.
    assert torch.equal(out.view(3, 5, 2)[-1, 0], source[-1, 0])
