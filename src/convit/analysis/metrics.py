"""Metrics of attention maps and positional weights: tensor in, tensor out.

Shapes: B batch, h heads, P prefix tokens (class token, registers), N = H W patches, T = P + N tokens. Rows of a map are
queries, columns are keys, prefix tokens first. Everything is computed in at least fp32. Lengths are in patches.
"""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from convit.errors import InputError
from convit.grid import Grid
from convit.ops.naive import compute_dtype


def non_locality(attention: Tensor, grid: tuple[int, int], num_prefix_tokens: int = 0) -> Tensor:
    r"""How far a head looks (equation 8 of the paper), in patches:

        D = (1 / N) sum_ij A_ij ||p_j - p_i||,    i and j patches

    0 where every patch attends to itself. The paper averages it over images, then over heads.

    Rows and columns of prefix tokens are left out. The remaining row is not scaled up to a sum of 1, so
    attention to the class token counts like attention at distance 0.

    Args:
        attention: ``(..., T, T)``, such as :attr:`LayerCapture.mixed` or :attr:`LayerCapture.positional` (with
            ``num_prefix_tokens=0``).
        grid: ``(height, width)`` of the patches.
        num_prefix_tokens: P.

    Returns:
        ``(...)``; ``(B, h)`` for the maps of a layer.

    Raises:
        InputError: the map does not fit the grid.

    Example:
        >>> non_locality(torch.tensor([[0.75, 0.25], [0.25, 0.75]]), grid=(1, 2))
        tensor(0.2500)
    """
    patches, full = _patches(attention, grid, num_prefix_tokens)
    distances = full.distances(device=patches.device, dtype=patches.dtype)
    return (patches * distances).sum((-2, -1)) / full.num_patches


def centres(pos_weight: Tensor) -> Tensor:
    r"""The attention centre of each head, as an offset from the query: ``-(w0, w1) / (2 w2)``.

    The positional logit is ``w0 dx + w1 dy + w2 (dx^2 + dy^2) = -a ||(dx, dy) - centre||^2 + const`` with ``a = -w2``.

    Args:
        pos_weight: ``v_pos``, ``(h, 3)``, the weights of ``dx``, ``dy`` and ``dx^2 + dy^2``.

    Returns:
        ``(h, 2)``: ``(dx, dy)`` in patches, right and down positive. NaN where ``w2 >= 0``: such a head has no centre,
        its attention grows towards the border, or does not depend on position at all. A centre can be outside the
        grid; the patch nearest to it then gets the largest weight.

    Example:
        >>> centres(torch.tensor([[2.0, -1.0, -1.0], [2.0, 0.0, 0.5]]))
        tensor([[ 1.0000, -0.5000],
                [    nan,     nan]])
    """
    weight = _pos_weight(pos_weight)
    curvature = weight[:, 2:]
    return torch.where(curvature < 0, -weight[:, :2] / (2 * curvature), torch.nan)


def spans(pos_weight: Tensor) -> Tensor:
    r"""The width of each head's positional attention: ``sigma = sqrt(1 / (2 a))`` with ``a = -w2``, in patches.

    Positional attention is ``exp(-a d^2)`` up to a factor: a Gaussian whose standard deviation along each axis would be
    sigma on an infinite, fine grid; a span below about half a patch means one patch. The paper's start has a = 1.

    Args:
        pos_weight: ``v_pos``, ``(h, 3)``.

    Returns:
        ``(h,)``; infinite where ``w2 >= 0``: such attention is not local.

    Example:
        >>> spans(torch.tensor([[0.0, 0.0, -0.125], [2.0, 0.0, 0.0]]))
        tensor([2., inf])
    """
    strength = -_pos_weight(pos_weight)[:, 2]
    return torch.where(strength > 0, (2 * strength).rsqrt(), torch.inf)


def entropy(attention: Tensor) -> Tensor:
    """The entropy of each query's attention, ``-sum_j A_ij log A_ij`` in nats: ``(..., T, T)`` to ``(..., T)``.

    0 where a query attends to one key, ``log T`` where it attends to all keys equally.

    >>> entropy(torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
    tensor([0.0000, 0.6931])
    """
    return torch.special.entr(_floating(attention)).sum(-1)


def head_diversity(attention: Tensor) -> Tensor:
    r"""How different the heads of a layer are: their Jensen-Shannon divergence, mean over pairs and queries.

        JS(a, b) = H((a + b) / 2) - (H(a) + H(b)) / 2    with H the entropy, in nats

    The distance between heads of Clark et al. 2019, "What Does BERT Look At?", section 6.

    Args:
        attention: ``(..., h, T, T)``, of at least two heads.

    Returns:
        ``(...)``: 0 where all heads are alike, ``log 2 = 0.693`` where no two share a key.

    Example:
        >>> head_diversity(torch.stack((torch.eye(3), torch.eye(3).roll(1, 0))))
        tensor(0.6931)
    """
    heads = _floating(attention).unbind(-3)
    if len(heads) < 2:
        raise InputError(f"attention: got {len(heads)} head, expected at least 2 to compare")
    own = [entropy(head) for head in heads]
    total = torch.zeros_like(own[0][..., 0])
    for first in range(len(heads)):  # a pair at a time: all at once would take h^2 maps
        for second in range(first):
            both = entropy((heads[first] + heads[second]) / 2)
            total = total + (both - (own[first] + own[second]) / 2).mean(-1)
    return total / (len(heads) * (len(heads) - 1) / 2)


def rollout(maps: Iterable[Tensor], residual: float = 0.5) -> Tensor:
    r"""Attention rollout (Abnar and Zuidema 2020): the share of each input token in each token after all layers given.

        R_l = (residual I + (1 - residual) mean_h A_l) R_(l-1),    R_0 = I

    A prefix token that is added at a later layer, as ConViT's class token after its GPSA layers, counts as an input
    token of its own.

    Args:
        maps: ``(B, h, T, T)`` for each layer, from the first on.
        residual: the weight of the path around the attention, 0 to 1.

    Returns:
        ``(B, T, T)``: rows are the last layer's tokens, columns those that went in, prefix tokens first. Rows sum to 1.

    Raises:
        InputError: no maps, or a layer with fewer tokens than the one before.
    """
    if not 0 <= residual <= 1:
        raise InputError(f"residual: got {residual}, expected 0 to 1")
    steps = (_floating(attention).mean(-3) * (1 - residual) for attention in maps)
    return _accumulate(steps, residual)


def relevance_rollout(maps: Iterable[Tensor], gradients: Iterable[Tensor]) -> Tensor:
    r"""Relevance by gradient (Chefer et al. 2021, "Generic Attention-model Explainability", equations 5 and 6):

        R_l = R_(l-1) + mean_h max(0, dy/dA_l * A_l) R_(l-1),    R_0 = I

    with y the logit of the class to explain. A class token that is added at a later layer counts as an input token.

    Args:
        maps: ``(B, h, T, T)`` for each layer, from the first on.
        gradients: those of each image's logit by them, of the same shapes.

    Returns:
        ``(B, T, T)``, rows are the last layer's tokens, columns those that went in.
    """
    steps = (
        (_floating(attention) * gradient).clamp_min(0).mean(-3)
        for attention, gradient in zip(maps, gradients, strict=True)
    )
    return _accumulate(steps, 1.0)


def picture(influence: Tensor, grid: tuple[int, int], num_prefix_tokens: int, pooling: str = "token") -> Tensor:
    """The part of a map over tokens that the classifier's head reads, as a picture.

    Args:
        influence: ``(..., T, T)``, such as a :func:`rollout`.
        grid: ``(height, width)`` of the patches.
        num_prefix_tokens: P.
        pooling: ``"token"`` takes the row of the first prefix token, ``"avg"`` the mean row of the patches.

    Returns:
        ``(..., H, W)``: the columns of the patches.

    Raises:
        InputError: the map does not fit the grid, no prefix token to read, another pooling.
    """
    patches, full = _patches(influence, grid, num_prefix_tokens)
    if pooling == "avg":
        return patches.mean(-2).unflatten(-1, full)
    if pooling != "token" or num_prefix_tokens < 1:
        raise InputError(f"pooling: got {pooling!r} and {num_prefix_tokens} prefix tokens, expected 'token' or 'avg'")
    return _floating(influence)[..., 0, num_prefix_tokens:].unflatten(-1, full)


def _accumulate(steps: Iterable[Tensor], residual: float) -> Tensor:
    """``R_l = (residual I + step_l) R_(l-1)`` from ``R_0 = I``; steps ``(B, T, T)`` in which T may grow."""
    total: Tensor | None = None
    for step in steps:
        tokens = step.shape[-1]
        if total is None:
            total = torch.eye(tokens, dtype=step.dtype, device=step.device).expand_as(step)
        new = tokens - total.shape[-1]
        if new < 0:
            raise InputError(
                f"maps: got {total.shape[-1]} tokens, then {tokens}; expected layers in order, first to last"
            )
        if new:
            joined = torch.ones(tokens, dtype=step.dtype, device=step.device)
            joined[new:] = 0
            total = F.pad(total, (new, 0, new, 0)) + joined.diag()
        total = residual * total + step @ total
    if total is None:
        raise InputError("maps: got none, expected at least one layer's")
    return total


def _floating(tensor: Tensor) -> Tensor:
    return tensor.to(compute_dtype(tensor.dtype))


def _pos_weight(pos_weight: Tensor) -> Tensor:
    if pos_weight.ndim != 2 or pos_weight.shape[1] != 3:
        raise InputError(f"pos_weight: got shape {tuple(pos_weight.shape)}, expected (heads, 3)")
    return _floating(pos_weight)


def _patches(attention: Tensor, grid: Sequence[int], num_prefix_tokens: int) -> tuple[Tensor, Grid]:
    """The part of a map among patches, ``(..., N, N)``, and the grid they fill."""
    full = Grid(*grid)
    tokens = num_prefix_tokens + full.num_patches
    if num_prefix_tokens < 0 or attention.ndim < 2 or attention.shape[-2:] != (tokens, tokens):
        raise InputError(
            f"attention: got shape {tuple(attention.shape)}, expected (..., {tokens}, {tokens}) for a grid of "
            f"{full.height} x {full.width} and {num_prefix_tokens} prefix tokens"
        )
    return _floating(attention)[..., num_prefix_tokens:, num_prefix_tokens:], full
