"""Geometry by hand, and the properties that hold on any grid."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from convit.grid import Grid, axis_offsets

grids = st.builds(Grid, height=st.integers(1, 7), width=st.integers(1, 7))


def test_axis_offset_is_key_minus_query() -> None:
    offset = axis_offsets(4)
    assert offset[1].tolist() == [-1, 0, 1, 2]
    assert offset[:, 1].tolist() == [1, 0, -1, -2]


def test_patches_are_numbered_row_by_row() -> None:
    # 2 rows of 3: patches 0 1 2 above 3 4 5, each given as (column, row).
    expected = [[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [2, 1]]
    assert Grid(2, 3).coordinates().tolist() == expected
    # The order in which an image's rows are flattened into tokens.
    image = torch.tensor([[2, 3, 5], [7, 11, 13]])
    x, y = Grid(2, 3).coordinates(dtype=torch.long).unbind(-1)
    assert image[y, x].tolist() == image.flatten().tolist()


def test_relative_positions_by_hand() -> None:
    relative = Grid(2, 3).relative_positions()
    # Query 2 is the top right patch; seen from there key 3, the bottom left one, lies 2 to the left and 1 below.
    assert relative[2, 3].tolist() == [-2, 1, 5]
    assert relative[3, 2].tolist() == [2, -1, 5]
    assert relative[4].tolist() == [[-1, -1, 2], [0, -1, 1], [1, -1, 2], [-1, 0, 1], [0, 0, 0], [1, 0, 1]]
    assert relative.shape == (6, 6, 3)


def test_distances_by_hand() -> None:
    assert Grid(4, 5).distances()[0, 19].item() == 5  # 4 to the right, 3 down
    root2, root5 = math.sqrt(2), math.sqrt(5)
    torch.testing.assert_close(Grid(2, 3).distances()[0], torch.tensor([0, 1, 2, 1, root2, root5]))


def test_type_and_device_are_those_asked_for() -> None:
    for name in ("coordinates", "offsets", "relative_positions", "distances"):
        tensor = getattr(Grid(2, 3), name)(device=torch.device("meta"), dtype=torch.float64)
        assert (tensor.device.type, tensor.dtype) == ("meta", torch.float64), name


@given(grids)
def test_offsets_on_any_grid(grid: Grid) -> None:
    offset = grid.offsets()
    assert torch.equal(offset, -offset.transpose(0, 1))
    assert torch.equal(offset.diagonal(), torch.zeros(2, grid.num_patches))
    # The two axes are those of axis_offsets, spread over the grid.
    tokens = torch.arange(grid.num_patches)
    x, y = tokens % grid.width, tokens // grid.width
    assert torch.equal(offset[..., 0], axis_offsets(grid.width)[x[:, None], x])
    assert torch.equal(offset[..., 1], axis_offsets(grid.height)[y[:, None], y])


@given(grids)
def test_distances_on_any_grid_are_a_metric(grid: Grid) -> None:
    distance = grid.distances(dtype=torch.float64)
    assert torch.equal(distance, distance.T)
    assert torch.equal(distance == 0, torch.eye(grid.num_patches, dtype=torch.bool))
    assert (distance[:, None, :] <= distance[:, :, None] + distance[None] + 1e-12).all()
    torch.testing.assert_close(distance.square(), grid.relative_positions(dtype=torch.float64)[..., 2])


@given(grids)
def test_of_takes_the_grid_that_the_tokens_fill(grid: Grid) -> None:
    assert Grid.of(grid.num_patches, tuple(grid)) == grid
    assert Grid.of(grid.height**2) == Grid(grid.height, grid.height)


SQUARES = {side * side: side for side in range(1, 101)}


@given(st.sampled_from(sorted(SQUARES)) | st.integers(0, 10_000))
def test_of_without_a_grid_takes_squares_alone(tokens: int) -> None:
    if tokens in SQUARES:
        assert Grid.of(tokens) == (SQUARES[tokens], SQUARES[tokens])
    else:
        with pytest.raises(ValueError, match=f"got {tokens} patch tokens, which is no square number"):
            Grid.of(tokens)


@pytest.mark.parametrize("grid", [(2, 4), (3, 3), (-2, -3), (0, 6)])
def test_of_names_what_does_not_fit(grid: tuple[int, int]) -> None:
    height, width = grid
    with pytest.raises(ValueError, match=f"got 6 patch tokens for a grid of {height} x {width} = {height * width}"):
        Grid.of(6, grid)
