"""The geometry of patches: positions, offsets and distances are computed only here.

Patches are numbered row by row: patch ``i`` of a grid of ``height x width`` lies at column ``x = i % width`` and row
``y = i // width``. All lengths are in patches.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


def axis_offsets(size: int, device: torch.device | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """Offsets along one axis, key minus query: ``out[i, j] = j - i``, shape ``(size, size)``.

    >>> axis_offsets(3)
    tensor([[ 0.,  1.,  2.],
            [-1.,  0.,  1.],
            [-2., -1.,  0.]])
    """
    position = torch.arange(size, device=device, dtype=dtype)
    return position[None, :] - position[:, None]


def coordinates(
    height: int, width: int, device: torch.device | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Column and row of every patch, ``(x, y)``: shape ``(height * width, 2)``."""
    y, x = torch.meshgrid(
        torch.arange(height, device=device, dtype=dtype), torch.arange(width, device=device, dtype=dtype), indexing="ij"
    )
    return torch.stack((x, y), dim=-1).reshape(-1, 2)


class Grid(NamedTuple):
    """A grid of ``height x width`` patches, numbered row by row.

    >>> grid = Grid(height=2, width=3)
    >>> grid.num_patches
    6
    >>> grid.offsets()[0, 5].tolist()  # from the top left patch to the bottom right one: (dx, dy)
    [2.0, 1.0]
    """

    height: int
    width: int

    @property
    def num_patches(self) -> int:
        """The number of patches, ``height * width``."""
        return self.height * self.width

    @classmethod
    def of(cls, num_patches: int, grid: "tuple[int, int] | None" = None) -> "Grid":
        """The grid that ``num_patches`` tokens form: the one given, checked, or a square one if none is given.

        Raises:
            ValueError: the tokens do not fill the given grid, or are no square number and no grid is given.
        """
        if grid is not None:
            height, width = grid
            if height < 1 or width < 1 or height * width != num_patches:
                raise ValueError(f"got {num_patches} patch tokens for a grid of {height} x {width} = {height * width}")
            return cls(height, width)
        side = math.isqrt(num_patches)
        if side < 1 or side * side != num_patches:
            behind_class_token = num_patches > 1 and math.isqrt(num_patches - 1) ** 2 == num_patches - 1
            hint = ", or num_prefix_tokens=1 if the first is a class token" if behind_class_token else ""
            raise ValueError(
                f"got {num_patches} patch tokens, which is no square number; pass grid=(height, width) "
                f"with height * width = {num_patches}{hint}"
            )
        return cls(side, side)

    def coordinates(self, *, device: torch.device | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
        """Column and row of every patch, ``(x, y)``: shape ``(N, 2)``."""
        return coordinates(self.height, self.width, device, dtype)

    def offsets(self, *, device: torch.device | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
        """Offset of every key ``j`` from every query ``i``, ``(dx, dy) = p_j - p_i``: shape ``(N, N, 2)``."""
        position = self.coordinates(device=device, dtype=dtype)
        return position[None, :] - position[:, None]

    def relative_positions(self, *, device: torch.device | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
        """The paper's ``r_ij`` in the order of ``pos_proj``'s columns, ``(dx, dy, dx^2 + dy^2)``: ``(N, N, 3)``."""
        offset = self.offsets(device=device, dtype=dtype)
        return torch.cat((offset, offset.square().sum(-1, keepdim=True)), dim=-1)

    def distances(self, *, device: torch.device | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
        """Euclidean distance between patches, ``||p_j - p_i||``: shape ``(N, N)``."""
        return self.offsets(device=device, dtype=dtype).square().sum(-1).sqrt()
