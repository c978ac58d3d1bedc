"""k^2 sharp heads are a k x k convolution (Cordonnier et al. 2019; section 3 of the paper)."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from convit import GPSA
from convit.layers import PositionalSelfAttention


def convolution_of(layer: PositionalSelfAttention, image: Tensor) -> tuple[Tensor, Tensor]:
    """The convolution that the value and output projections of k^2 heads spell out, and its kernel.

    Head ``iy + k ix`` looks at the kernel's cell (ix, iy), so ``W[:, :, iy, ix] = W_proj[:, head] W_v[head]``. A patch
    at the border that looks outside sees the nearest patch: the borders are replicated.
    """
    k, width = math.isqrt(layer.num_heads), layer.dim // layer.num_heads
    kernel = torch.empty(layer.dim, layer.dim, k, k, dtype=image.dtype)
    for ix in range(k):
        for iy in range(k):
            head = iy + k * ix
            channels = slice(head * width, (head + 1) * width)
            kernel[:, :, iy, ix] = layer.proj.weight[:, channels] @ layer.v.weight[channels]
    padded = F.pad(image, [k // 2] * 4, mode="replicate")
    return F.conv2d(padded, kernel, layer.proj.bias), kernel


def assert_is_a_convolution(k: int, grid: tuple[int, int], strength: float) -> None:
    """Gates open, projections drawn at random.

    Tolerance: along one axis the next patch is at least one unit further in the squared distance to the centre, so
    the axis leaks less than 2 (e^-a + e^-4a + ...) < 2.1 e^-a of its weight, both axes less than 4.2 e^-a. What is
    leaked is taken from one value and given to another: twice that, times the largest sum of |kernel| |image|. To
    that comes the rounding of fp64.
    """
    layer = GPSA(dim=2 * k * k, num_heads=k * k, locality_strength=strength, gate_init=50.0, dtype=torch.float64)
    with torch.no_grad():
        for parameter in (layer.v.weight, layer.proj.weight, layer.proj.bias):
            parameter.normal_()
    image = torch.randn(2, layer.dim, *grid, dtype=torch.float64)
    with torch.no_grad():
        out = layer(image.flatten(2).transpose(1, 2), grid).transpose(1, 2).unflatten(2, grid)
        expected, kernel = convolution_of(layer, image)
    scale = (kernel.abs().sum((1, 2, 3)).max() * image.abs().max()).item()
    assert (out - expected).abs().max() <= (2 * 4.2 * math.exp(-strength) + 1e-14) * scale


@pytest.mark.parametrize("strength", [5.0, 15.0, 40.0])
@pytest.mark.parametrize("grid", [(4, 7), (6, 5)])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_open_gates_and_sharp_heads_are_a_convolution(k: int, grid: tuple[int, int], strength: float) -> None:
    assert_is_a_convolution(k, grid, strength)


@given(k=st.sampled_from([1, 3]), height=st.integers(1, 6), width=st.integers(1, 6), strength=st.floats(3, 60))
def test_on_any_grid(k: int, height: int, width: int, strength: float) -> None:
    assert_is_a_convolution(k, (height, width), strength)
