"""Initialisation: of the linear weights and norms, and the convolutional init of positional attention."""

import math

import torch
from timm.layers import trunc_normal_
from torch import Tensor, nn

from convit.choices import FAN_IN, PUBLISHED_STD


def start_weights(module: nn.Module, std: float | str = PUBLISHED_STD) -> None:
    """The init of the published code: linear weights from a normal cut at 2, biases 0, norms 1 and 0.

    Convolutions (the patch embedding, a CNN stem) keep their own init.

    Args:
        module: a linear layer or a norm; others are left alone.
        std: of the normal, 0.02 in the paper; ``"fan_in"`` for ``fan_in^-1/2``, with which a layer keeps the variance
            of its input. The two are the same at a width of 2500; in narrow models 0.02 is much smaller.

    Raises:
        ValueError: ``std`` is neither a positive number nor ``"fan_in"``.
    """
    if std != FAN_IN and not (isinstance(std, float | int) and std > 0):
        raise ValueError(f"weight_std: got {std!r}, expected a positive number or {FAN_IN!r}")
    if isinstance(module, nn.Linear):
        drawn = torch.empty_like(module.weight, dtype=torch.float32)  # in 16 bits PyTorch 2.10 also draws the cut, -2
        trunc_normal_(drawn, std=module.in_features**-0.5 if isinstance(std, str) else std)
        with torch.no_grad():
            module.weight.copy_(drawn)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)


def head_centres(num_heads: int) -> Tensor:
    """The initial attention centre ``D_h = (x, y)`` of each head, in patches: ``(num_heads, 2)``.

    A square number of heads, ``k^2``, gives the offsets of a ``k x k`` convolution kernel, from ``-(k-1)/2`` to
    ``(k-1)/2`` on each axis (half-integers for an even k), head number ``iy + k ix`` for the kernel cell (ix, iy): the
    published init. Any other number gives the integer offsets nearest to the query, (0, 0) first; among equally near
    ones opposite offsets follow each other, horizontal before vertical before diagonal. So 3 heads attend to the patch
    itself and its left and right neighbours, 5 heads to the plus-shaped neighbourhood.

    >>> head_centres(4).tolist()
    [[-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5], [0.5, 0.5]]
    >>> head_centres(3).tolist()
    [[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]
    """
    if num_heads < 1:
        raise ValueError(f"num_heads: got {num_heads}, expected at least 1")
    side = math.isqrt(num_heads)
    if side * side == num_heads:
        axis = torch.arange(side) - (side - 1) / 2
        return torch.cartesian_prod(axis, axis)
    cells = [(x, y) for x in range(-side, side + 1) for y in range(-side, side + 1)]
    cells.sort(key=_nearness)
    return torch.tensor(cells[:num_heads], dtype=torch.float32)


def _nearness(cell: tuple[int, int]) -> tuple[int, bool, bool, float, bool]:
    """Sorts lattice cells: by distance, then horizontal, vertical, the rest by angle; opposite cells side by side."""
    x, y = cell
    opposite = y < 0 or (y == 0 and x < 0)
    angle = math.atan2(-y, -x) if opposite else math.atan2(y, x)
    return x * x + y * y, y != 0, x != 0, angle, opposite


def convolutional_pos_weight(num_heads: int, locality_strength: float = 1.0) -> Tensor:
    """``pos_proj.weight`` of the convolutional init, equation 5: ``(num_heads, 3)``.

        v_pos . r = a (2 D_x dx + 2 D_y dy - (dx^2 + dy^2)) = -a ||d - D||^2 + a ||D||^2

    Args:
        num_heads: number of heads; their centres are those of :func:`head_centres`.
        locality_strength: ``a``, positive: how narrow each head's attention is around its centre, in patches^-2.

    Raises:
        ValueError: ``locality_strength`` is not positive and finite.
    """
    if not (locality_strength > 0 and math.isfinite(locality_strength)):
        raise ValueError(f"locality_strength: got {locality_strength}, expected a positive number")
    centres = head_centres(num_heads)
    return locality_strength * torch.cat((2 * centres, -torch.ones(num_heads, 1)), dim=1)
