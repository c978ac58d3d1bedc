"""Attention as pure functions on tensors: they check their input and pick a backend.

- ``naive``: the equation as written, with every map in memory; the reference, and the form that returns its maps.
- ``factorized``: the same value without an ``N x N`` tensor.
- ``triton``: gated attention as one fused CUDA kernel forward and two backward; imported only when used.

Shapes: B batch, h heads, P prefix tokens (class token, registers), N patches, d head width.
"""

import importlib.util
import os

import torch
from torch import Tensor

from convit.grid import Grid
from convit.ops import factorized, naive
from convit.ops.naive import Maps, Through, gates

__all__ = [
    "BACKENDS",
    "Maps",
    "Through",
    "gated_attention",
    "gates",
    "positional_attention",
    "self_attention",
    "why_not_triton",
]

BACKENDS = ("auto", "factorized", "naive", "triton")

_HAS_TRITON = importlib.util.find_spec("triton") is not None
_TRITON_TYPES = (torch.float32, torch.float16, torch.bfloat16)
_TRITON_MAX_WIDTH = 128
_SOME_IMAGES = 8
"""From so many images on ``auto`` is naive on a CPU if there are few tokens (:data:`convit.ops.factorized.FEW_TOKENS`).
With 32 images, forward and backward take 0.8 to 1.04 of the factorized form's time at 16 to 36 tokens and head widths
of 8 and 16 (at 64 it would be 1.3); forward of one image 1.3, as there are more operations."""


def gated_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gate: Tensor,
    pos_weight: Tensor,
    grid: tuple[int, int] | None = None,
    num_prefix_tokens: int = 0,
    backend: str = "auto",
    through: Through | None = None,
) -> Tensor:
    r"""Gated positional attention (GPSA), equations 6 and 7 of the paper, for every head ``h``:

        A_h = (1 - sigmoid(l_h)) softmax(q k^T / sqrt(d)) + sigmoid(l_h) softmax(v_pos . r),    out = A_h v

    with ``r_ij = (dx, dy, dx^2 + dy^2)`` the position of patch j seen from patch i. A prefix token has no position: it
    attends, and is attended to, by content alone.

    Args:
        q, k, v: queries, keys and values, ``(B, h, P + N, d)``, prefix tokens first.
        gate: ``l``, the logit of each head's gate, ``(h,)``; 1 at the start in the paper, sigmoid(1) = 0.731.
        pos_weight: ``v_pos``, ``(h, 3)``: the weights of ``dx``, ``dy`` and ``dx^2 + dy^2``, in patches.
        grid: ``(height, width)`` of the patches; a square if left out.
        num_prefix_tokens: P.
        backend: ``"factorized"``, ``"naive"``, ``"triton"``, or ``"auto"`` for the fastest one that supports the call:
            naive if maps pass through a module or function, or on a CPU in fp32 with at most 36 tokens and at least
            8 images, where the maps are so small that they cost less than the steps that avoid them; triton in 16-bit
            types on CUDA if :func:`why_not_triton` gives None and a test of the kernel, made once, gave the right
            numbers (a warning says if it did not), else factorized. Triton is differentiable once: for second
            derivatives use ``"naive"``.
        through: what the maps pass through, such as a dropout of A; only the naive form has maps.

    Returns:
        ``(B, h, P + N, d)`` in the type of ``v``. Positional softmaxes and gates are computed in at least fp32.

    Raises:
        ValueError: shapes that do not fit together, tokens that do not fill the grid, an unknown backend or one that
            does not support the call.

    Example:
        >>> import torch
        >>> q = k = v = torch.randn(2, 4, 6, 8)
        >>> out = gated_attention(q, k, v, torch.ones(4), torch.randn(4, 3), grid=(2, 3))
        >>> out.shape
        torch.Size([2, 4, 6, 8])
    """
    full_grid = _check(q, k, v, pos_weight, grid, num_prefix_tokens, backend, through)
    if gate.shape != (q.shape[1],):
        raise ValueError(f"gate: got shape {tuple(gate.shape)}, expected one logit per head, ({q.shape[1]},)")
    if backend == "naive" or through is not None or (backend == "auto" and _prefers_naive(q)):
        return naive.gated_attention(q, k, v, gate, pos_weight, full_grid, num_prefix_tokens, through or naive.FREE)[0]
    if backend == "triton" or (backend == "auto" and _prefers_triton(q, k, v)):
        return _fused(q, k, v, gate, pos_weight, full_grid, num_prefix_tokens)
    return factorized.gated_attention(q, k, v, gate, pos_weight, full_grid, num_prefix_tokens)


def _fused(
    q: Tensor, k: Tensor, v: Tensor, gate: Tensor, pos_weight: Tensor, grid: Grid, num_prefix_tokens: int
) -> Tensor:
    """The kernel, imported only here. A function of its own: TorchScript reads no imports, not even unused ones."""
    from convit.ops import triton

    return triton.gated_attention(q, k, v, gate, pos_weight, grid, num_prefix_tokens)


def positional_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pos_weight: Tensor,
    grid: tuple[int, int] | None = None,
    num_prefix_tokens: int = 0,
    backend: str = "auto",
    through: Through | None = None,
) -> Tensor:
    r"""Ungated positional self-attention (PSA), equations 3 and 4 of the paper: one softmax over the sum.

        A_h = softmax(q k^T / sqrt(d) + v_pos . r),    out = A_h v

    A pair in which a prefix token takes part has ``r = 0``. Arguments, result and errors are those of
    :func:`gated_attention`, without the gate and without triton: one softmax already runs as PyTorch's fused kernel.
    """
    if backend == "triton":
        raise ValueError("backend: got 'triton' for ungated attention, expected one of auto, factorized, naive")
    full_grid = _check(q, k, v, pos_weight, grid, num_prefix_tokens, backend, through)
    if backend == "naive" or through is not None:
        return naive.positional_attention(q, k, v, pos_weight, full_grid, num_prefix_tokens, through or naive.FREE)[0]
    return factorized.positional_attention(q, k, v, pos_weight, full_grid, num_prefix_tokens)


def self_attention(q: Tensor, k: Tensor, v: Tensor, dropout_p: float = 0.0, through: Through | None = None) -> Tensor:
    r"""Plain attention: ``A_h = softmax(q k^T / sqrt(d)),    out = A_h v``.

    Args:
        q, k, v: ``(B, h, N, d)``.
        dropout_p: probability of dropping an entry of A.
        through: what the map passes through; then it is computed as written, and the dropout is to be in it.

    Returns:
        ``(B, h, N, d)`` in the type of ``v``.
    """
    if through is not None:
        return naive.self_attention(q, k, v, through)[0]
    return factorized.content_attention(q, k, v, dropout_p)


def why_not_triton(q: Tensor, k: Tensor, v: Tensor) -> str | None:
    """Why the fused kernel does not cover :func:`gated_attention` of these tensors: one line, or None if it does.

    With ``TRITON_INTERPRET=1`` it covers tensors on the CPU too, to try the kernel where there is no GPU.

    Example:
        >>> x = torch.ones(1, 1, 4, 160)
        >>> why_not_triton(x, x, x)
        'got a head width of 160, expected at most 128'
    """
    if not (q.dtype == k.dtype == v.dtype and q.dtype in _TRITON_TYPES):
        return f"got q, k, v in {q.dtype}, {k.dtype}, {v.dtype}, expected one of float32, float16, bfloat16 for all"
    if q.shape[-1] > _TRITON_MAX_WIDTH:
        return f"got a head width of {q.shape[-1]}, expected at most {_TRITON_MAX_WIDTH}"
    if torch._C._are_functorch_transforms_active():
        return "got a call inside torch.func (vmap, grad, jvp), for which it has no rule"
    if not _HAS_TRITON:
        return "triton is not installed"
    if not q.is_cuda:
        if q.device.type != "cpu" or os.environ.get("TRITON_INTERPRET") != "1":
            return f"got tensors on {q.device.type}, expected cuda"
        # It multiplies the bits of bf16 as if they were integers (triton issue 11584).
        wrong = q.dtype == torch.bfloat16
        return "got bfloat16 in Triton's interpreter, which multiplies it wrongly, expected cuda" if wrong else None
    if torch.version.hip is not None:
        return "got ROCm, expected CUDA"
    major, minor = _cuda_capability(q.device)
    return None if major >= 8 else f"got a GPU of compute capability {major}.{minor}, expected 8.0 or newer"


@torch.compiler.assume_constant_result
def _cuda_capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def _prefers_naive(q: Tensor) -> bool:
    """Whether ``auto`` is naive for its speed. Compiled and exported graphs have one form for all sizes."""
    if torch.compiler.is_compiling() or torch.compiler.is_exporting() or torch.jit.is_tracing():
        return False
    few = q.shape[2] <= factorized.FEW_TOKENS and q.shape[0] >= _SOME_IMAGES
    return few and q.device.type == "cpu" and q.dtype == torch.float32


def _prefers_triton(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether ``auto`` is triton."""
    # An exported graph would need this package to run; and exact products in fp32 do without the matrix units, which
    # is no case for a kernel of ours.
    exporting = torch.compiler.is_exporting() or torch.jit.is_tracing()
    if not q.is_cuda or q.dtype == torch.float32 or exporting or why_not_triton(q, k, v) is not None:
        return False
    return _passed_trial(q.device, q.dtype, q.shape[-1])


@torch.compiler.assume_constant_result
def _passed_trial(device: torch.device, dtype: torch.dtype, width: int) -> bool:
    """Whether the fused kernel gave the right numbers here, when it was first wanted."""
    from convit.ops import triton_trial

    return triton_trial.failure(device, dtype, width) is None


def scripted_grid(num_patches: int, grid: tuple[int, int] | None) -> tuple[int, int]:
    """The checks in short, for TorchScript, which knows neither ``Grid``'s methods nor their f-strings."""
    if grid is None:
        side = int(num_patches**0.5)
        grid = (side, side)
    assert grid[0] * grid[1] == num_patches, "the patch tokens do not fill the grid"
    return grid


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pos_weight: Tensor,
    grid: tuple[int, int] | None,
    num_prefix_tokens: int,
    backend: str,
    through: Through | None,
) -> Grid:
    """The grid of the patches, once everything fits together."""
    if grid is not None and any(isinstance(side, torch.SymInt) for side in grid) and torch.compiler.is_exporting():
        return Grid(*grid)  # a question about an open size would become a rule of the graph
    if q.ndim != 4 or q.shape != k.shape or q.shape != v.shape:
        raise ValueError(
            "q, k, v: expected three tensors of one shape (batch, heads, tokens, head width), "
            f"got {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}"
        )
    if pos_weight.shape != (q.shape[1], 3):
        raise ValueError(
            f"pos_weight: got shape {tuple(pos_weight.shape)}, expected (heads, 3) = ({q.shape[1]}, 3), "
            "the weights of dx, dy and dx^2 + dy^2"
        )
    if backend not in BACKENDS:
        raise ValueError(f"backend: got {backend!r}, expected one of {', '.join(BACKENDS)}")
    if backend in ("factorized", "triton") and through is not None:
        raise ValueError(f"through: got it with backend {backend!r}, which holds no map; expected 'auto' or 'naive'")
    if backend == "triton" and (reason := why_not_triton(q, k, v)) is not None:
        raise ValueError(f"backend: got 'triton', which does not cover this case: {reason}; backend 'auto' does")
    if not 0 <= num_prefix_tokens < q.shape[2]:
        raise ValueError(f"num_prefix_tokens: got {num_prefix_tokens}, expected 0 to {q.shape[2] - 1}")
    return Grid.of(q.shape[2] - num_prefix_tokens, grid)
