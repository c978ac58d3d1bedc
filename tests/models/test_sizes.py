"""Any size that the patch divides, in the constructor and at run time; anything else is an error with a way out."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from timm.layers import resample_abs_pos_embed

from convit import ConViT
from convit.models.position import position_embedding, resize_matrix
from convit.models.stem import patch_grid
from tests.helpers import relative_error, tiny_model


def position_added(model: ConViT, height: int, width: int) -> torch.Tensor:
    """What the model adds to the patches of an image of that size, ``(1, N, C)``."""
    x = torch.zeros(1, 3, height, width)
    tokens, grid = model.embed(x)
    assert grid == (height // model.patch_size, width // model.patch_size)
    return tokens - model.patch_embed(x).flatten(2).transpose(1, 2)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (16, 64), (24, 40), (4, 4)])
def test_position_embedding_is_resized_with_the_true_grids(height: int, width: int) -> None:
    model = tiny_model(img_size=(64, 16))  # 16 x 4 patches: as many as 8 x 8 and 4 x 16
    old = model.pos_embed.detach().view(1, 16, 4, -1).permute(0, 3, 1, 2)
    new = F.interpolate(old, size=(height // 4, width // 4), mode="bicubic", antialias=True, align_corners=False)
    expected = new.flatten(2).transpose(1, 2)
    torch.testing.assert_close(position_added(model, height, width), expected, atol=1e-6, rtol=1e-5)


def test_position_embedding_of_the_same_size_keeps_every_bit() -> None:
    model = tiny_model(img_size=(64, 16))
    x = torch.randn(2, 3, 64, 16)
    patches = model.patch_embed(x).flatten(2).transpose(1, 2)
    assert torch.equal(model.embed(x)[0], patches + model.pos_embed)


def test_without_position_embedding() -> None:
    model = tiny_model(use_pos_embed=False)
    assert model.pos_embed is None
    assert "pos_embed" not in model.state_dict()
    assert not position_added(model, 24, 8).any()
    assert model(torch.randn(2, 3, 24, 8)).shape == (2, 5)


@pytest.fixture(scope="module")
def model() -> ConViT:
    return tiny_model().eval()


@given(rows=st.integers(1, 6), columns=st.integers(1, 6))
def test_any_size_at_run_time(model: ConViT, rows: int, columns: int) -> None:
    assert model(torch.randn(2, 3, 4 * rows, 4 * columns)).shape == (2, 5)
    assert model.forward_features(torch.randn(1, 3, 4 * rows, 4 * columns)).shape == (1, 1 + rows * columns, 36)


def test_a_rectangle_is_not_its_transpose() -> None:
    model = tiny_model(use_pos_embed=False, local_up_to_layer=3, global_pool="avg").eval()
    patches = torch.randn(1, 3, 16, 64)
    # The same 64 patches in the same order, once as 4 x 16 and once as 16 x 4.
    cut = patches.unfold(2, 4, 4).unfold(3, 4, 4)  # (1, 3, 4, 16, 4, 4)
    other = cut.reshape(1, 3, 16, 4, 4, 4).permute(0, 1, 2, 4, 3, 5).reshape(1, 3, 64, 16)
    torch.testing.assert_close(model.embed(patches)[0], model.embed(other)[0])
    assert not torch.allclose(model(patches), model(other), atol=1e-5)


BAD_SIZES = [
    ((16, 18), "got 16 x 18, expected multiples of the patch size 4; nearest: 16 x 16 or 16 x 20$"),
    ((17, 23), "got 17 x 23, expected multiples of the patch size 4; nearest: 16 x 20 or 20 x 24$"),
    ((3, 16), "got 3 x 16, expected multiples of the patch size 4; nearest: 4 x 16$"),
]


@pytest.mark.parametrize(("size", "message"), BAD_SIZES)
def test_sizes_that_the_patch_does_not_divide(size: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_model(img_size=size)
    with pytest.raises(ValueError, match=message):
        tiny_model()(torch.randn(1, 3, *size))
    with pytest.raises(ValueError, match=message):
        tiny_model().forward_intermediates(torch.randn(1, 3, *size))


@given(height=st.integers(1, 100), width=st.integers(1, 100), patch=st.integers(1, 20))
def test_nearest_sizes_work(height: int, width: int, patch: int) -> None:
    try:
        grid = patch_grid(height, width, patch)
    except ValueError as error:
        for size in str(error).split("nearest: ")[1].split(" or "):
            near_height, near_width = map(int, size.split(" x "))
            assert abs(near_height - height) < patch
            assert abs(near_width - width) < patch
            assert patch_grid(near_height, near_width, patch).num_patches > 0
    else:
        assert (grid.height * patch, grid.width * patch) == (height, width)


@given(*(st.integers(1, 23) for _ in range(4)))
def test_embeddings_are_resized_as_timm_does(old_rows: int, old_columns: int, rows: int, columns: int) -> None:
    embedding = torch.randn(1, old_rows * old_columns, 5, generator=torch.Generator().manual_seed(rows))
    expected = resample_abs_pos_embed(embedding, [rows, columns], [old_rows, old_columns], num_prefix_tokens=0)
    found = position_embedding(embedding, (rows, columns), (old_rows, old_columns))
    assert found.shape == expected.shape
    assert relative_error(found, expected) < 1e-5


def test_resize_matrix_by_hand() -> None:
    # From two samples to four: the first lies at -1/4, so k(1/4) and k(5/4) with k Keys' kernel, over their sum.
    near, far = 1.5 / 64 - 2.5 / 16 + 1, -0.5 * 125 / 64 + 2.5 * 25 / 16 - 4 * 5 / 4 + 2
    expected = torch.tensor([near, far]) / (near + far)
    assert torch.allclose(resize_matrix(2, 4)[0], expected, atol=1e-6)
    identity = F.interpolate(torch.eye(5)[None, None], size=(3, 5), mode="bicubic", antialias=True)[0, 0]
    assert torch.allclose(resize_matrix(5, 3), identity, atol=1e-6)
