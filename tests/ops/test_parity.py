"""The factorized form against the naive one: output and every gradient.

Reference is the naive form in fp64 on the same numbers, so that fp32 and bf16 are held to the exact value and not to
a reference with errors of its own.
"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from convit import ops
from convit.ops import factorized

# The largest error allowed, over the largest value of the tensor. The worst measured is 1e-13, 3e-5 and 4e-2, each in
# the gradient of pos_weight, a sum of squared distances of both signs; the outputs are 2e-14, 4e-6 and 1e-2.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 6e-5, torch.bfloat16: 6e-2}
LOW_PRECISION = [torch.float32, torch.bfloat16]

GRIDS = [(1, 1), (1, 7), (7, 1), (2, 3), (5, 3), (4, 4), (5, 5), (3, 11)]
NAMES = ("output", "q", "k", "v", "pos_weight", "gate")


def draw(grid: tuple[int, int], prefix: int, dtype: torch.dtype, seed: int = 0) -> list[Tensor]:
    """q, k, v, pos_weight and gate of 3 heads, width 5, batch 2."""
    generator = torch.Generator().manual_seed(seed)
    tokens = prefix + grid[0] * grid[1]
    shapes = [(2, 3, tokens, 5)] * 3 + [(3, 3), (3,)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def output_and_gradients(
    inputs: list[Tensor], gated: bool, grid: tuple[int, int], prefix: int, backend: str
) -> dict[str, Tensor]:
    """The output and the gradient of every input, with a random gradient of the output."""
    q, k, v, pos_weight, gate = leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    if gated:
        out = ops.gated_attention(q, k, v, gate, pos_weight, grid, prefix, backend=backend)
    else:
        out = ops.positional_attention(q, k, v, pos_weight, grid, prefix, backend=backend)
        leaves.pop()
    assert out.dtype == q.dtype
    generator = torch.Generator().manual_seed(1)
    out_grad = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype)
    return dict(zip(NAMES, (out.detach(), *torch.autograd.grad(out, leaves, out_grad)), strict=False))


def assert_parity(inputs: list[Tensor], gated: bool, grid: tuple[int, int], prefix: int, backend: str) -> None:
    got = output_and_gradients(inputs, gated, grid, prefix, backend)
    exact = output_and_gradients([tensor.double() for tensor in inputs], gated, grid, prefix, "naive")
    assert len(got) == len(exact) == (6 if gated else 5)
    scale = max(tensor.abs().max().item() for tensor in exact.values())
    for name, value in got.items():
        # A single key gets all the attention: the gradient of what chose it is 0 and has no scale of its own.
        tolerance = TOLERANCE[value.dtype] * max(exact[name].abs().max().item(), 1e-2 * scale)
        error = (value.double() - exact[name]).abs().max().item()
        assert error <= tolerance, f"{name} of {backend} in {value.dtype} on {grid}: {error:.2e} > {tolerance:.2e}"


@pytest.mark.parametrize("gated", [True, False], ids=["gated", "ungated"])
@pytest.mark.parametrize("prefix", [0, 1, 2])
@pytest.mark.parametrize("grid", GRIDS)
def test_factorized_is_naive_in_fp64(grid: tuple[int, int], prefix: int, gated: bool) -> None:
    assert_parity(draw(grid, prefix, torch.float64), gated, grid, prefix, "factorized")


@pytest.mark.parametrize("backend", ["factorized", "naive"])
@pytest.mark.parametrize("gated", [True, False], ids=["gated", "ungated"])
@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize("grid", [(1, 7), (7, 1), (5, 3), (4, 4), (3, 11)])
@pytest.mark.parametrize("dtype", LOW_PRECISION, ids=str)
def test_low_precision(dtype: torch.dtype, grid: tuple[int, int], prefix: int, gated: bool, backend: str) -> None:
    assert_parity(draw(grid, prefix, dtype), gated, grid, prefix, backend)


@given(
    height=st.integers(1, 8),
    width=st.integers(1, 8),
    prefix=st.integers(0, 2),
    gated=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_factorized_is_naive_on_any_shape(height: int, width: int, prefix: int, gated: bool, seed: int) -> None:
    inputs = draw((height, width), prefix, torch.float64, seed)
    assert_parity(inputs, gated, (height, width), prefix, "factorized")


@pytest.mark.parametrize("prefix", [0, 2])
def test_the_positional_path_computed_anew_gives_the_same_gradients(
    prefix: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large grids do not keep it for the backward pass: the same bits, and nothing of it saved."""
    inputs = draw((8, 12), prefix, torch.float32)
    saved: list[list[torch.Size]] = []
    results = []
    for start in (97, 96):
        monkeypatch.setattr(factorized, "RECOMPUTE_FROM", start)
        kept: list[torch.Size] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, kept=kept: kept.append(x.shape) or x, lambda x: x):
            q, k, v, pos_weight, gate = (tensor.clone().requires_grad_() for tensor in inputs)
            out = ops.gated_attention(q, k, v, gate, pos_weight, (8, 12), prefix)
        saved.append(kept)
        results.append([out, *torch.autograd.grad(out.square().sum(), (q, k, v, pos_weight, gate))])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert sum(shape.numel() for shape in saved[1]) < 0.8 * sum(shape.numel() for shape in saved[0])
