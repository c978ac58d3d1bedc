"""The same functions as :mod:`convit.ops.naive` without an ``N x N`` tensor: exact, not an approximation.

The positional logit ``w0 dx + w1 dy + w2 (dx^2 + dy^2)`` is a function of ``dx`` plus one of ``dy``, so on a full grid
of keys its softmax is the product of a softmax along rows and one along columns:

    softmax_j(v_pos . r_ij) = softmax_x(w0 dx + w2 dx^2) softmax_y(w1 dy + w2 dy^2)

Positional attention becomes two small matrix products, ``O(N (H + W))`` in place of ``O(N^2)``, and content attention
is PyTorch's fused ``scaled_dot_product_attention``. Shapes: B batch, h heads, P prefix tokens, N = H W patches, d head
width.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from convit.grid import axis_offsets, coordinates
from convit.ops import naive
from convit.ops.naive import compute_dtype


def axis_attention(linear: Tensor, quadratic: Tensor, size: int) -> Tensor:
    """Positional attention along one axis, ``softmax_j(linear d + quadratic d^2)`` with ``d = j - i``.

    Args:
        linear: the weight of the offset for each head, any shape.
        quadratic: the weight of its square, of a shape that broadcasts with ``linear``.
        size: the number of patches along the axis, S.

    Returns:
        Rows that sum to one, ``(*linear.shape, S, S)``.
    """
    offset = axis_offsets(size, device=linear.device, dtype=linear.dtype)
    logits = torch.addcmul(linear[..., None, None], quadratic[..., None, None], offset) * offset
    attention = torch.softmax(logits, dim=-1)
    # The softmax of a sharp head underflows to denormal numbers, which a CPU multiplies five times slower. The dropped
    # weights are below 1e-31 of the sum (1e-292 in fp64), far below its rounding.
    return F.threshold(attention, 1e-292 if attention.dtype == torch.float64 else 1e-31, 0.0)


def both_axes(pos_weight: Tensor, grid: tuple[int, int], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Positional attention along x, ``(h, W, W)``, and along y, ``(h, H, H)``, computed in at least fp32."""
    weight = pos_weight.to(compute_dtype(dtype)).t()
    height, width = grid
    # Both at once: at batch 1 the number of operations determines the time. Dynamic sizes, which are no int, are not
    # compared: the result would be fixed in an exported graph.
    if isinstance(height, int) and isinstance(width, int) and height == width:
        along_x, along_y = axis_attention(weight[:2], weight[2], width).to(dtype).unbind(0)
        return along_x, along_y
    along_x = axis_attention(weight[0], weight[2], width)
    return along_x.to(dtype), axis_attention(weight[1], weight[2], height).to(dtype)


def attend_by_position(v: Tensor, pos_weight: Tensor, grid: tuple[int, int]) -> Tensor:
    """``softmax(v_pos . r) v`` for the patches of a full grid.

    Args:
        v: values, ``(B, h, N, d)``.
        pos_weight: ``(h, 3)``, the weights of ``dx``, ``dy`` and ``dx^2 + dy^2``.
        grid: the grid that the N patches fill.

    Returns:
        ``(B, h, N, d)``.
    """
    batch, heads, patches, dim = v.shape
    height, width = grid
    along_x, along_y = both_axes(pos_weight, grid, v.dtype)
    # All images side by side, as (h, H, W B d) and (h, H, W, B d): one product for each head along y, and one for each
    # of its rows along x, in place of one for each image. With the narrow heads of small models the many tiny products
    # would cost two to three times more. What comes back is a view of (h, N, B, d).
    mixed = torch.matmul(along_y, v.permute(1, 2, 0, 3).reshape(heads, height, width * batch * dim))
    mixed = torch.matmul(along_x[:, None], mixed.view(heads, height, width, batch * dim))
    mixed = mixed.view(heads, height, width, batch, dim).permute(3, 0, 1, 2, 4)
    if not torch.jit.is_scripting():
        mixed = _in_order(mixed)
    return mixed.reshape(batch, heads, patches, dim)


def _in_order(tensor: Tensor) -> Tensor:
    """The same values; in an exported graph copied, as PyTorch 2.10 cannot order strides that depend on the batch."""
    return tensor.contiguous() if torch.compiler.is_exporting() else tensor


FEW_TOKENS = 36
"""Up to so many tokens on a CPU, in fp32, PyTorch's fused kernel takes longer than the equation as written: 1.2 times
as long at 36 tokens and a head width of 8, forward and backward 1.7 times."""
MORE_TOKENS, NARROW = 64, 8
"""Forward and backward it does so up to so many tokens too, 1.1 times as long, if heads are no wider than this."""


def _is_faster_written_out(q: Tensor) -> bool:
    """Whether the fused kernel is the slower form. Compiled and exported graphs have one form for all sizes."""
    if torch.compiler.is_compiling() or torch.compiler.is_exporting() or torch.jit.is_tracing():
        return False
    tokens, width = q.shape[-2:]
    in_training = q.requires_grad and tokens <= MORE_TOKENS and width <= NARROW
    return q.device.type == "cpu" and q.dtype == torch.float32 and (tokens <= FEW_TOKENS or in_training)


def content_attention(q: Tensor, k: Tensor, v: Tensor, dropout_p: float = 0.0, scale: float | None = None) -> Tensor:
    """``softmax(q k^T / sqrt(d)) v``, ``(B, h, P + N, d)``, by PyTorch's fused kernels; ``scale`` for ``1 / sqrt(d)``.

    The fused kernels have no second derivative. In fp64, where speed matters less, and where they are slower
    (:data:`FEW_TOKENS`), the equation is computed as written and has one; elsewhere it has one within
    ``torch.nn.attention.sdpa_kernel(SDPBackend.MATH)``.
    """
    if torch.jit.is_scripting():
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout_p, scale=scale)
    if dropout_p == 0 and (q.dtype == torch.float64 or _is_faster_written_out(q)):
        return naive.content_map(q, k, scale) @ v
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout_p, scale=scale)


RECOMPUTE_FROM = 1024
"""From this number of patches on the backward pass computes positional attention again in place of keeping its tensors.
It is a few hundredths of content attention's arithmetic there; its tensors would be a fifth of a step's memory."""


def gated_attention(
    q: Tensor, k: Tensor, v: Tensor, gate: Tensor, pos_weight: Tensor, grid: tuple[int, int], num_prefix_tokens: int = 0
) -> Tensor:
    """Gated positional attention, ``(B, h, P + N, d)``; see :func:`convit.ops.gated_attention`."""
    content = content_attention(q, k, v)
    p = num_prefix_tokens
    patches, values = content[:, :, p:], v[:, :, p:]
    if torch.jit.is_scripting():
        mixed = _mix(patches, values, gate, pos_weight, grid)
    elif _recomputes(values):
        mixed = checkpoint(_mix, patches, values, gate, pos_weight, grid, use_reentrant=False, preserve_rng_state=False)
    else:
        mixed = _mix(patches, values, gate, pos_weight, grid)
    return mixed if p == 0 else torch.cat((content[:, :, :p], mixed), dim=2)


def _mix(content: Tensor, v: Tensor, gate: Tensor, pos_weight: Tensor, grid: tuple[int, int]) -> Tensor:
    """``(1 - g) content + g positional``, all of the patches alone."""
    weight = torch.sigmoid(gate.to(compute_dtype(v.dtype))).to(content.dtype)[:, None, None]
    return torch.lerp(content, attend_by_position(v, pos_weight, grid), weight)


def _recomputes(v: Tensor) -> bool:
    """Whether memory counts for more than the positional path's time, and nothing traces the code."""
    if torch.jit.is_tracing():
        return False
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    return v.shape[2] >= RECOMPUTE_FROM and torch.is_grad_enabled()


@torch.compiler.assume_constant_result  # up to PyTorch 2.10 it cannot be traced
def _has_autocast(device: str) -> bool:
    return torch.amp.is_autocast_available(device)


def without_autocast(device: str) -> AbstractContextManager[object]:
    """For coordinates, which must not be rounded to bf16. Nothing where none is on: exported graphs stay clean."""
    if _has_autocast(device) and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


def positional_attention(
    q: Tensor, k: Tensor, v: Tensor, pos_weight: Tensor, grid: tuple[int, int], num_prefix_tokens: int = 0
) -> Tensor:
    """Ungated positional attention, ``(B, h, P + N, d)``; see :func:`convit.ops.positional_attention`.

    A quadratic in the offset is an inner product of a function of the query with a function of the key:

        v_pos . r_ij = (w0 - 2 w2 x_i) x_j + (w1 - 2 w2 y_i) y_j + w2 |p_j|^2 + (w2 |p_i|^2 - w0 x_i - w1 y_i)

    so four columns appended to q and k turn it into plain attention. The last term is constant for a query; it matters
    only if there are keys without a position, whose logits have no such term. Runs in at least fp32.
    """
    dtype = compute_dtype(q.dtype)
    heads, dim = q.shape[1], q.shape[-1]
    w0, w1, w2 = pos_weight.to(dtype)[:, :, None].unbind(1)  # (h, 1) each
    # Seen from the middle of the grid the coordinates are smallest, and so is the rounding.
    point = coordinates(grid[0], grid[1], q.device, dtype)
    x, y = (point - point.mean(0)).unbind(-1)  # (N,) each
    norm = x * x + y * y
    query = torch.stack((w0 - 2 * w2 * x, w1 - 2 * w2 * y, w2.expand(-1, x.shape[0]), w2 * norm - w0 * x - w1 * y), -1)
    key = torch.stack((x, y, norm, torch.ones_like(x)), -1).expand(heads, -1, -1)

    # The fused kernels want values of the same width; the appended zeros are cut off again.
    value = F.pad(v.to(dtype), (0, 4))
    q = _append(q.to(dtype) * dim**-0.5, query, num_prefix_tokens)
    k = _append(k.to(dtype), key, num_prefix_tokens)
    if torch.jit.is_scripting():
        out = content_attention(q, k, value, scale=1.0)
    else:
        with without_autocast(q.device.type):
            out = content_attention(q, k, value, scale=1.0)
    return out[..., :dim].to(v.dtype)


def _append(tensor: Tensor, columns: Tensor, num_prefix_tokens: int) -> Tensor:
    """``columns``, ``(h, N, 4)``, behind ``tensor``, ``(B, h, P + N, d)``; zeros behind the prefix tokens."""
    columns = F.pad(columns, (0, 0, num_prefix_tokens, 0)).expand(tensor.shape[0], -1, -1, -1)
    return torch.cat((tensor, columns), dim=-1)
