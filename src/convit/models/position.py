"""The absolute position embedding, resized to other grids than the one it was trained on."""

import torch
from timm.models import register_notrace_function
from torch import Tensor

from convit.ops.naive import compute_dtype


@register_notrace_function  # FX takes it as one step: it cannot trace the question
def position_embedding(pos_embed: Tensor, grid: tuple[int, int], trained_grid: tuple[int, int]) -> Tensor:
    """Position embeddings of the grid that they were trained on, resized to another one.

    PyTorch's antialiased bicubic filter, which timm resizes with, is linear and the same in every row and every column:
    ``out = R_rows E R_columns^T``. As two matrix products it can be exported with open sizes.

    Args:
        pos_embed: E, ``(1, N', C)``.
        grid: rows and columns to resize to.
        trained_grid: rows and columns that it has.

    Returns:
        ``(1, N, C)``; the very embedding where the grids are the same.
    """
    rows, columns = grid
    old_rows, old_columns = trained_grid
    if isinstance(rows, int) and isinstance(columns, int) and rows == old_rows and columns == old_columns:
        return pos_embed
    x = pos_embed.to(compute_dtype(pos_embed.dtype))
    along_y = resize_matrix(old_rows, rows, x.device, x.dtype)
    along_x = resize_matrix(old_columns, columns, x.device, x.dtype)
    x = torch.matmul(along_y, x.reshape(old_rows, -1))  # (rows, old columns * C)
    x = torch.matmul(along_x, x.reshape(rows, old_columns, pos_embed.shape[-1]))
    return x.flatten(0, 1)[None].to(pos_embed.dtype)


def resize_matrix(old: int, new: int, device: torch.device | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """How PyTorch's antialiased bicubic filter makes ``new`` samples of ``old``: ``(new, old)``, rows sum to one.

    With ``s = old / new``, ``R_ij = k((j + 1/2 - s (i + 1/2)) / max(s, 1))``, normalised; ``k`` is Keys' cubic
    kernel, a = -1/2.

    >>> resize_matrix(3, 3)
    tensor([[1., 0., 0.],
            [0., 1., 0.],
            [0., 0., 1.]])
    """
    scale = old * torch.ones((), device=device, dtype=dtype) / new
    centre = (torch.arange(new, device=device, dtype=dtype) + 0.5) * scale
    t = ((torch.arange(old, device=device, dtype=dtype) + 0.5 - centre[:, None]) / scale.clamp(min=1.0)).abs()
    near = (1.5 * t - 2.5) * t * t + 1
    far = ((-0.5 * t + 2.5) * t - 4) * t + 2
    kernel = torch.where(t < 1, near, torch.where(t < 2, far, torch.zeros_like(t)))
    return kernel / kernel.sum(dim=1, keepdim=True)
