"""Tests the fused kernel's results on this GPU, once, before ``auto`` uses it.

Compilers, drivers and GPUs differ, and with a wrong kernel a wrong model would be trained unnoticed. The test takes a
few milliseconds once its kernels are compiled, and these are needed anyway.
"""

import functools
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from convit.ops import factorized

# The largest error allowed, over the largest value of the tensor: several times what these types lose by rounding.
TOLERANCE = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 6e-2}
GRID, PREFIX = (5, 7), 1


@functools.cache
def failure(device: torch.device, dtype: torch.dtype, width: int) -> str | None:
    """What went wrong in the trial for this device, type and head width, said in a warning too; None if nothing did."""
    try:
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
            reason = _compare(device, dtype, width)
    except Exception as error:  # a compiler's, a driver's, anybody's: factorized does the same without it
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if reason is not None:
        reason = f"the fused kernel failed its trial on {device} in {dtype} at head width {width} ({reason})"
        warnings.warn(f"{reason}; the factorized form runs instead, slower and exact", RuntimeWarning, stacklevel=2)
    return reason


def _compare(device: torch.device, dtype: torch.dtype, width: int) -> str | None:
    from convit.ops import triton

    generator = torch.Generator().manual_seed(0)  # one of its own: nothing random of the caller's is used up
    tokens = PREFIX + GRID[0] * GRID[1]
    shapes = [(2, 2, tokens, width)] * 3 + [(2,), (2, 3)]
    inputs = [torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes]
    weight = torch.randn(shapes[0], generator=generator).to(device)

    def results(function: Callable[..., Tensor], dtype: torch.dtype) -> list[Tensor]:
        leaves = [tensor.to(dtype).requires_grad_() for tensor in inputs]
        out = function(*leaves, GRID, PREFIX)
        return [out, *torch.autograd.grad((out.float() * weight).sum(), leaves)]

    names = ("output", "gradient of q", "gradient of k", "gradient of v", "gradient of gate", "gradient of pos_weight")
    got = results(triton.gated_attention, dtype)
    expected = results(factorized.gated_attention, torch.float32)
    for name, value, right in zip(names, got, expected, strict=True):
        error = ((value.float() - right).abs().max() / right.abs().max()).item()
        if not error <= TOLERANCE[dtype]:
            return f"{name} is wrong by {error:.1e} of the largest"
    return None
