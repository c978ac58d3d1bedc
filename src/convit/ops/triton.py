r"""Gated positional attention as one fused CUDA kernel forward and two backward, in Triton.

Above 350 lines, for the three kernels are one derivation: what one of them keeps another reads.

Meant for :func:`convit.ops.gated_attention` with ``backend="triton"``, which checks its input; importing this module
needs triton. With ``TRITON_INTERPRET=1`` set before triton is imported the same kernels run on CPU tensors, slowly.

How it is computed:

- The positional softmax is known before any key is read, because it separates: its largest logit is that of the W
  columns plus that of the H rows, and the sum of its exponentials is the product of theirs. A positional weight is then
  ``exp(z_ij - peak_i) / total_i``, computed in registers from two coordinates. Along an axis the peak is at a known
  offset p, and the difference of two logits is ``(d - p)(w + w2 (d + p))``: no large terms that cancel, so sharp heads
  that look far away lose no digits, and nothing overflows.
- The content normaliser is known only after the last key, so the two maps cannot share an accumulator in one pass.
  Forward keeps two, content (rescaled as usual) and positional: three products for a block of keys in place of two.
  A second pass over the keys would need three as well, and one more exponential, which costs more than a product at
  these head widths. Rows and columns as two products of their own, as in :mod:`convit.ops.factorized`, need less
  arithmetic but read and write the values twice more, and with a few hundred tokens memory limits the speed of
  attention.
- Backward knows both softmaxes, so both maps become one: ``A = (1 - g) P_c + g P_p`` and ``dV = A^T dO`` is one
  product. ``dA = dO V^T`` serves both maps. ``D_c = sum_j P_c dA`` is ``dO . O_c``, for which forward saves the content
  part of its output; ``D_p`` and the sums for ``v_pos`` are accumulated in fp32 while ``dq`` is.
- ``dz = g P_p (dA - D_p)`` sums to zero over the keys, so the gradient of ``v_pos`` is a covariance with ``r``. It is
  summed around the mean of ``r``, known like the peak.
- No atomics: each block of queries writes its share of the gradients of gate and ``v_pos``, and torch adds them up.
  The same input gives the same bits.

Exponentials are to base 2, which is what the hardware has. Everything but the operands of the matrix
products is fp32. Shapes: B batch, h heads, P prefix tokens, N = H W patches, d head width.
"""

# The parameters of a Triton kernel have no Python types.
# mypy: allow-untyped-defs, allow-incomplete-defs

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp2(-x * _LOG2E))


@triton.jit
def _patch(token, prefix, width):
    """Column and row of the patches behind tokens. Where there is no patch they mean nothing, but are finite."""
    # Every thread needs many of these for few products. In floating point they cost three instructions, an integer
    # division twenty. The half keeps the quotient clear of the integers.
    patch = (token - prefix).to(tl.float32)
    y = tl.floor((patch + 0.5) * (1.0 / width))
    return patch - y * width, y


@triton.jit
def _below(offset, peak, linear, quadratic):
    """The logit at an offset minus that at the peak's."""
    return (offset - peak) * (linear + quadratic * (offset + peak))


@triton.jit
def _axis(at, size, linear, quadratic, BLOCK: tl.constexpr):
    """The softmax along one axis seen from ``at``: offset of the largest logit, sum of the exponentials relative to it,
    mean offset, mean square."""
    first_key, last_key = -at, size - 1 - at
    farther = (last_key - first_key) * (linear + quadratic * (last_key + first_key)) > 0
    end = tl.where(farther, last_key, first_key)
    top = tl.floor(0.5 - linear / (2.0 * tl.where(quadratic < 0, quadratic, -1.0)))
    peak = tl.where(quadratic < 0, tl.minimum(tl.maximum(top, first_key), last_key), end)
    total = tl.zeros(at.shape, tl.float32)
    first = tl.zeros(at.shape, tl.float32)
    second = tl.zeros(at.shape, tl.float32)
    for start in range(0, size, BLOCK):
        key = start + tl.arange(0, BLOCK)
        offset = key.to(tl.float32)[None, :] - at[:, None]
        logit = tl.where(key[None, :] < size, _below(offset, peak[:, None], linear, quadratic), float("-inf"))
        weight = tl.exp2(logit * _LOG2E)
        total += tl.sum(weight, 1)
        first += tl.sum(weight * offset, 1)
        second += tl.sum(weight * offset * offset, 1)
    return peak, total, first / total, second / total


@triton.jit
def _position_weights(pos_weight, head):
    """``v_pos`` of a head."""
    w0 = tl.load(pos_weight + head * 3).to(tl.float32)
    w1 = tl.load(pos_weight + head * 3 + 1).to(tl.float32)
    w2 = tl.load(pos_weight + head * 3 + 2).to(tl.float32)
    return w0, w1, w2


@triton.jit
def _load_rows(start, row, rows, row_stride, column, D: tl.constexpr):
    """``(block, d)`` of a tensor that begins at ``start``; zeros behind its last row and column."""
    mask = (row < rows)[:, None] & (column < D)[None, :]
    return tl.load(start + row[:, None] * row_stride + column[None, :], mask=mask, other=0.0)


@triton.jit
def _store_rows(start, value, row, rows, row_stride, column, D: tl.constexpr):
    mask = (row < rows)[:, None] & (column < D)[None, :]
    tl.store(start + row[:, None] * row_stride + column[None, :], value.to(start.dtype.element_ty), mask=mask)


@triton.jit
def _forward_kernel(
    q, k, v, gate, pos_weight, out, content, lse, pos_sums,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row,
    heads, tokens, prefix, height, width, scale, blocks,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_AXIS: tl.constexpr,
    PRECISION: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """One block of queries of one head against all keys. ``KEEP``: also what backward needs."""
    # Neighbouring programs are blocks of one head: they share its keys and values in the cache.
    both = (tl.program_id(0) // blocks).to(tl.int64)
    batch, head = both // heads, both % heads
    row = (tl.program_id(0) % blocks) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.arange(0, BLOCK_D)
    k += batch * k_batch + head * k_head
    v += batch * v_batch + head * v_head

    w0, w1, w2 = _position_weights(pos_weight, head)
    x, y = _patch(row, prefix, width)
    peak_x, total_x, _, _ = _axis(x, width, w0, w2, BLOCK_AXIS)
    peak_y, total_y, _, _ = _axis(y, height, w1, w2, BLOCK_AXIS)
    is_patch = (row >= prefix) & (row < tokens)
    far = tl.where(is_patch, 0.0, float("-inf"))  # every positional weight of the others is zero
    per_total = 1.0 / (total_x * total_y)

    query = _load_rows(q + batch * q_batch + head * q_head, row, tokens, q_row, column, D)
    peak = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    by_content = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    by_position = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for start in range(0, tokens, BLOCK_N):
        token = start + tl.arange(0, BLOCK_N)
        key = _load_rows(k, token, tokens, k_row, column, D)
        value = _load_rows(v, token, tokens, v_row, column, D)

        absent = tl.where(token < tokens, 0.0, float("-inf"))
        logit = tl.dot(query, tl.trans(key), input_precision=PRECISION) * scale + absent[None, :]
        higher = tl.maximum(peak, tl.max(logit, 1))
        rescale = tl.exp2(peak - higher)
        weight = tl.exp2(logit - higher[:, None])
        total = total * rescale + tl.sum(weight, 1)
        by_content = tl.dot(weight.to(value.dtype), value, by_content * rescale[:, None], input_precision=PRECISION)
        peak = higher

        key_x, key_y = _patch(token, prefix, width)
        absent = tl.where((token >= prefix) & (token < tokens), 0.0, float("-inf"))
        dx, dy = key_x[None, :] - x[:, None], key_y[None, :] - y[:, None]
        logit = _below(dx, peak_x[:, None], w0, w2) + _below(dy, peak_y[:, None], w1, w2)
        weight = tl.exp2(logit * _LOG2E + absent[None, :] + far[:, None])
        by_position = tl.dot(weight.to(value.dtype), value, by_position, input_precision=PRECISION)

    open_ = tl.load(gate + head).to(tl.float32)
    share = tl.where(is_patch, _sigmoid(-open_), 1.0)
    by_content = by_content / total[:, None]
    mixed = share[:, None] * by_content + (_sigmoid(open_) * per_total)[:, None] * by_position
    start = (batch * tokens * heads + head) * D
    _store_rows(out + start, mixed, row, tokens, heads * D, column, D)
    if KEEP:
        _store_rows(content + start, by_content, row, tokens, heads * D, column, D)
        tl.store(lse + both * tokens + row, peak + tl.log2(total), mask=row < tokens)
        if batch == 0:  # the same for every image
            tl.store(pos_sums + head * tokens + row, peak_x, mask=row < tokens)
            tl.store(pos_sums + (heads + head) * tokens + row, peak_y, mask=row < tokens)
            tl.store(pos_sums + (2 * heads + head) * tokens + row, per_total, mask=row < tokens)


@triton.jit
def _query_kernel(
    q, k, v, gate, pos_weight, out_grad, content, lse, delta, q_grad, shares,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, g_batch, g_head, g_row,
    heads, tokens, prefix, height, width, scale, blocks,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_AXIS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Of one block of queries: the gradient of q, ``D_c``, and its share of the gradients of gate and ``v_pos``."""
    both = (tl.program_id(0) // blocks).to(tl.int64)
    batch, head = both // heads, both % heads
    row = (tl.program_id(0) % blocks) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.arange(0, BLOCK_D)
    k += batch * k_batch + head * k_head
    v += batch * v_batch + head * v_head

    w0, w1, w2 = _position_weights(pos_weight, head)
    x, y = _patch(row, prefix, width)
    peak_x, total_x, mean_x, square_x = _axis(x, width, w0, w2, BLOCK_AXIS)
    peak_y, total_y, mean_y, square_y = _axis(y, height, w1, w2, BLOCK_AXIS)
    is_patch = (row >= prefix) & (row < tokens)
    far = tl.where(is_patch, 0.0, float("-inf"))
    per_total = 1.0 / (total_x * total_y)
    mean_square = square_x + square_y

    start = (batch * tokens * heads + head) * D
    query = _load_rows(q + batch * q_batch + head * q_head, row, tokens, q_row, column, D)
    grad = _load_rows(out_grad + batch * g_batch + head * g_head, row, tokens, g_row, column, D)
    by_content = _load_rows(content + start, row, tokens, heads * D, column, D)
    log = tl.load(lse + both * tokens + row, mask=row < tokens, other=float("inf"))
    mean = tl.sum(grad.to(tl.float32) * by_content.to(tl.float32), 1)
    tl.store(delta + both * tokens + row, mean, mask=row < tokens)

    dq = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    by_content_grad = tl.zeros([BLOCK_M], tl.float32)  # D_c, without the rounding of the content part
    by_position_grad = tl.zeros([BLOCK_M], tl.float32)  # D_p and the sums for v_pos, each times the total
    along_x = tl.zeros([BLOCK_M], tl.float32)
    along_y = tl.zeros([BLOCK_M], tl.float32)
    squared = tl.zeros([BLOCK_M], tl.float32)
    for start in range(0, tokens, BLOCK_N):
        token = start + tl.arange(0, BLOCK_N)
        key = _load_rows(k, token, tokens, k_row, column, D)
        value = _load_rows(v, token, tokens, v_row, column, D)
        map_grad = tl.dot(grad, tl.trans(value), input_precision=PRECISION)

        absent = tl.where(token < tokens, 0.0, float("-inf"))
        logit = tl.dot(query, tl.trans(key), input_precision=PRECISION) * scale + absent[None, :]
        weight = tl.exp2(logit - log[:, None])
        logit_grad = weight * (map_grad - mean[:, None])
        dq = tl.dot(logit_grad.to(key.dtype), key, dq, input_precision=PRECISION)

        key_x, key_y = _patch(token, prefix, width)
        absent = tl.where((token >= prefix) & (token < tokens), 0.0, float("-inf"))
        dx, dy = key_x[None, :] - x[:, None], key_y[None, :] - y[:, None]
        logit = _below(dx, peak_x[:, None], w0, w2) + _below(dy, peak_y[:, None], w1, w2)
        pull = tl.exp2(logit * _LOG2E + absent[None, :] + far[:, None]) * map_grad
        by_content_grad += tl.sum(weight * map_grad, 1)
        by_position_grad += tl.sum(pull, 1)
        along_x += tl.sum(pull * (dx - mean_x[:, None]), 1)
        along_y += tl.sum(pull * (dy - mean_y[:, None]), 1)
        squared += tl.sum(pull * (dx * dx + dy * dy - mean_square[:, None]), 1)

    open_ = tl.load(gate + head).to(tl.float32)
    opened, closed = _sigmoid(open_), _sigmoid(-open_)
    share = tl.where(is_patch, closed, 1.0) * scale / _LOG2E
    start = (batch * tokens * heads + head) * D
    _store_rows(q_grad + start, dq * share[:, None], row, tokens, heads * D, column, D)
    shares += tl.program_id(0).to(tl.int64) * 4
    gain = tl.where(is_patch, by_position_grad * per_total - by_content_grad, 0.0)
    tl.store(shares, opened * closed * tl.sum(gain, 0))
    tl.store(shares + 1, opened * tl.sum(along_x * per_total, 0))
    tl.store(shares + 2, opened * tl.sum(along_y * per_total, 0))
    tl.store(shares + 3, opened * tl.sum(squared * per_total, 0))


@triton.jit
def _key_kernel(
    q, k, v, gate, pos_weight, out_grad, lse, pos_sums, delta, k_grad, v_grad,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, g_batch, g_head, g_row,
    heads, tokens, prefix, height, width, scale, blocks,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradients of one block of keys and values of one head. Maps are transposed: rows are keys."""
    both = (tl.program_id(0) // blocks).to(tl.int64)
    batch, head = both // heads, both % heads
    token = (tl.program_id(0) % blocks) * BLOCK_N + tl.arange(0, BLOCK_N)
    column = tl.arange(0, BLOCK_D)
    q += batch * q_batch + head * q_head
    out_grad += batch * g_batch + head * g_head

    w0, w1, w2 = _position_weights(pos_weight, head)
    open_ = tl.load(gate + head).to(tl.float32)
    opened, closed = _sigmoid(open_), _sigmoid(-open_)
    key_x, key_y = _patch(token, prefix, width)
    absent = tl.where((token >= prefix) & (token < tokens), 0.0, float("-inf"))

    key = _load_rows(k + batch * k_batch + head * k_head, token, tokens, k_row, column, D)
    value = _load_rows(v + batch * v_batch + head * v_head, token, tokens, v_row, column, D)
    dk = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    dv = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    for start in range(0, tokens, BLOCK_M):
        row = start + tl.arange(0, BLOCK_M)
        query = _load_rows(q, row, tokens, q_row, column, D)
        grad = _load_rows(out_grad, row, tokens, g_row, column, D)
        # Infinite: a query that is not there has no weight anywhere, a prefix token no positional one.
        log = tl.load(lse + both * tokens + row, mask=row < tokens, other=float("inf"))
        far = tl.where((row >= prefix) & (row < tokens), 0.0, float("-inf"))
        peak_x = tl.load(pos_sums + head * tokens + row, mask=row < tokens, other=0.0)
        peak_y = tl.load(pos_sums + (heads + head) * tokens + row, mask=row < tokens, other=0.0)
        per_total = tl.load(pos_sums + (2 * heads + head) * tokens + row, mask=row < tokens, other=0.0)
        mean = tl.load(delta + both * tokens + row, mask=row < tokens, other=0.0)
        share = tl.where(row < prefix, 1.0, closed)

        logit = tl.dot(key, tl.trans(query), input_precision=PRECISION) * scale
        by_content = tl.exp2(logit - log[None, :]) * share[None, :]
        x, y = _patch(row, prefix, width)
        dx, dy = key_x[:, None] - x[None, :], key_y[:, None] - y[None, :]
        logit = _below(dx, peak_x[None, :], w0, w2) + _below(dy, peak_y[None, :], w1, w2)
        weight = tl.exp2(logit * _LOG2E + absent[:, None] + far[None, :])
        mixed = by_content + (opened * per_total)[None, :] * weight
        dv = tl.dot(mixed.to(grad.dtype), grad, dv, input_precision=PRECISION)

        map_grad = tl.dot(value, tl.trans(grad), input_precision=PRECISION)
        logit_grad = by_content * (map_grad - mean[None, :])
        dk = tl.dot(logit_grad.to(query.dtype), query, dk, input_precision=PRECISION)

    start = (batch * tokens * heads + head) * D
    _store_rows(k_grad + start, dk * (scale / _LOG2E), token, tokens, heads * D, column, D)
    _store_rows(v_grad + start, dv, token, tokens, heads * D, column, D)


# (kernel, operands in fp32, head width above 64) -> queries and keys in a block, warps, pipeline stages. Chosen from
# what the compiler makes of them for compute capability 9.0 and 8.0: no registers spilled inside a loop, and Hopper's
# matrix instructions, which want 64 rows. Not yet tuned by the clock.
_LAUNCH = {
    ("forward", False, False): (64, 64, 4, 2),
    ("forward", False, True): (64, 64, 8, 2),
    ("forward", True, False): (32, 32, 8, 2),
    ("forward", True, True): (32, 32, 8, 2),
    ("query", False, False): (64, 32, 4, 2),
    ("query", False, True): (64, 32, 8, 2),
    ("query", True, False): (32, 32, 4, 2),
    ("query", True, True): (32, 32, 8, 2),
    ("key", False, False): (32, 64, 4, 2),
    ("key", False, True): (32, 64, 8, 2),
    ("key", True, False): (32, 32, 8, 2),
    ("key", True, True): (16, 32, 8, 2),
}
_BLOCK_AXIS = 16


def _launch(kernel: str, q: Tensor) -> dict[str, Any]:
    """The options of a kernel for these queries."""
    block_d = max(16, triton.next_power_of_2(q.shape[-1]))
    fp32 = q.dtype == torch.float32
    block_m, block_n, warps, stages = _LAUNCH[kernel, fp32, block_d > 64]
    # fp32 is multiplied exactly, unless the user lets torch's matrix products use TF32.
    tf32 = fp32 and torch.backends.cuda.matmul.fp32_precision == "tf32"
    sizes = {"D": q.shape[-1], "BLOCK_D": block_d, "BLOCK_M": block_m, "BLOCK_N": block_n}
    how = {"PRECISION": "tf32" if tf32 else "ieee", "num_warps": warps, "num_stages": stages, "enable_fp_fusion": True}
    return sizes | how


def _like_tokens(q: Tensor) -> Tensor:
    """An empty ``(B, h, tokens, d)`` with the heads of a token side by side, so that merging them copies nothing."""
    batch, heads, tokens, dim = q.shape
    return q.new_empty(batch, tokens, heads, dim).transpose(1, 2)


def _unit_columns(x: Tensor) -> Tensor:
    """The kernels take any strides but that of the columns, which is 1 in everything that a layer makes."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _sizes(q: Tensor, height: int, width: int) -> tuple[int, int, int, int, int, float]:
    """Heads, tokens, prefix tokens, height, width and the scale of the content logits."""
    _, heads, tokens, dim = q.shape
    return heads, tokens, tokens - height * width, height, width, dim**-0.5 * _LOG2E.value


@torch.library.custom_op("convit::gated_attention", mutates_args=())
def _forward(
    q: Tensor, k: Tensor, v: Tensor, gate: Tensor, pos_weight: Tensor, height: int, width: int, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The output and, if ``keep``, what backward needs, else empty tensors.

    Returns:
        The output; its content part; log2 of the sum of the exponentials of the content logits, ``(B, h, tokens)``; and
        the offsets in x and y of the largest positional logit with one over the sum of the exponentials relative to it,
        ``(3, h, tokens)``.
    """
    out, content, lse, pos_sums = _forward_results(q, k, v, gate, pos_weight, height, width, keep)
    q, k, v = _unit_columns(q), _unit_columns(k), _unit_columns(v)
    launch = _launch("forward", q)
    blocks = triton.cdiv(q.shape[2], launch["BLOCK_M"])
    with torch.cuda.device_of(q):
        _forward_kernel[(q.shape[0] * q.shape[1] * blocks,)](
            q, k, v, gate.contiguous(), pos_weight.contiguous(), out, content, lse, pos_sums,
            *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *_sizes(q, height, width), blocks,
            BLOCK_AXIS=_BLOCK_AXIS, KEEP=keep, **launch,
        )  # fmt: skip
    return out, content, lse, pos_sums


@_forward.register_fake
def _forward_results(
    q: Tensor, k: Tensor, v: Tensor, gate: Tensor, pos_weight: Tensor, height: int, width: int, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What :func:`_forward` returns, not yet filled in."""
    batch, heads, tokens, _ = q.shape if keep else (0, 0, 0, 0)
    content = _like_tokens(q) if keep else q.new_empty(0, 0, 0, 0)
    lse = q.new_empty(batch, heads, tokens, dtype=torch.float32)
    return _like_tokens(q), content, lse, q.new_empty(3, heads, tokens, dtype=torch.float32)


@torch.library.custom_op("convit::gated_attention_backward", mutates_args=())
def _backward(
    out_grad: Tensor, q: Tensor, k: Tensor, v: Tensor, gate: Tensor, pos_weight: Tensor, content: Tensor, lse: Tensor,
    pos_sums: Tensor, height: int, width: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of q, k, v, gate and pos_weight."""
    q_grad, k_grad, v_grad = _like_tokens(q), _like_tokens(q), _like_tokens(q)
    q, k, v, out_grad = _unit_columns(q), _unit_columns(k), _unit_columns(v), _unit_columns(out_grad)
    open_, position = gate.contiguous(), pos_weight.contiguous()
    strides = (*q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *out_grad.stride()[:3])
    sizes = _sizes(q, height, width)
    batch, heads, tokens, _ = q.shape
    delta = torch.empty_like(lse)
    by_query, by_key = _launch("query", q), _launch("key", q)
    query_blocks, key_blocks = triton.cdiv(tokens, by_query["BLOCK_M"]), triton.cdiv(tokens, by_key["BLOCK_N"])
    shares = lse.new_empty(batch, heads, query_blocks, 4)
    with torch.cuda.device_of(q):
        _query_kernel[(batch * heads * query_blocks,)](
            q, k, v, open_, position, out_grad, content, lse, delta, q_grad, shares, *strides, *sizes, query_blocks,
            BLOCK_AXIS=_BLOCK_AXIS, **by_query,
        )  # fmt: skip
        _key_kernel[(batch * heads * key_blocks,)](
            q, k, v, open_, position, out_grad, lse, pos_sums, delta, k_grad, v_grad, *strides, *sizes, key_blocks,
            **by_key,
        )  # fmt: skip
    total = shares.sum((0, 2))
    return q_grad, k_grad, v_grad, total[:, 0].to(gate.dtype, copy=True), total[:, 1:].to(pos_weight.dtype, copy=True)


@_backward.register_fake
def _backward_results(
    out_grad: Tensor, q: Tensor, k: Tensor, v: Tensor, gate: Tensor, pos_weight: Tensor, content: Tensor, lse: Tensor,
    pos_sums: Tensor, height: int, width: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """What :func:`_backward` returns, not yet filled in."""
    gate_grad = gate.new_empty(gate.shape)
    return _like_tokens(q), _like_tokens(q), _like_tokens(q), gate_grad, pos_weight.new_empty(pos_weight.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, height, width, _ = inputs
    _, *kept = output
    ctx.save_for_backward(*tensors, *kept)
    ctx.mark_non_differentiable(*kept)
    ctx.grid = (height, width)


def _differentiate(ctx: Any, out_grad: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    return (*_backward(out_grad, *ctx.saved_tensors, *ctx.grid), None, None, None)


_forward.register_autograd(_differentiate, setup_context=_save)


def gated_attention(
    q: Tensor, k: Tensor, v: Tensor, gate: Tensor, pos_weight: Tensor, grid: tuple[int, int], num_prefix_tokens: int = 0
) -> Tensor:
    """Gated positional attention, ``(B, h, P + N, d)``; see :func:`convit.ops.gated_attention`.

    Differentiable once, in all five tensors.
    """
    height, width = grid
    assert q.shape[2] == num_prefix_tokens + height * width, "the patch tokens do not fill the grid"
    keep = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v, gate, pos_weight))
    return _forward(q, k, v, gate, pos_weight, height, width, keep)[0]
