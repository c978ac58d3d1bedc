"""A CNN in place of the patch embedding."""

import pytest
import torch
from torch import nn

from tests.helpers import biases_of_pos_proj, randomise, step, tiny_model, without_gradient


def cnn(stride: int, channels: int = 8) -> nn.Module:
    """One convolution of that stride."""
    return nn.Conv2d(3, channels, stride, stride)


@pytest.mark.parametrize(("stride", "kernel"), [(4, 1), (2, 2), (1, 4)])
def test_a_module_as_the_stem(stride: int, kernel: int) -> None:
    model = tiny_model(hybrid_backbone=cnn(stride)).eval()
    # What the CNN does not reduce, the projection does: one token still covers patch_size pixels a side.
    assert model.patch_embed.proj.kernel_size == (kernel, kernel)
    x = torch.randn(2, 3, 16, 16)
    tokens, grid = model.embed(x)
    patches = model.patch_embed.proj(model.patch_embed.backbone(x)).flatten(2).transpose(1, 2)
    assert grid == (4, 4)
    assert torch.equal(tokens, patches + model.pos_embed)
    assert model(torch.randn(2, 3, 16, 24)).shape == (2, 5)


@pytest.mark.parametrize("stride", [8, 3])
def test_a_stride_that_does_not_divide_the_patch(stride: int) -> None:
    with pytest.raises(
        ValueError, match=r"hybrid_backbone: its feature map is .* at 24 x 24 pixels, .* patch_size, 4$"
    ):
        tiny_model(hybrid_backbone=cnn(stride), img_size=24)


@pytest.mark.parametrize(("patch_size", "stride", "kernel"), [(16, 16, 1), (8, 8, 1), (64, 32, 2)])
def test_a_timm_model_as_the_stem(patch_size: int, stride: int, kernel: int) -> None:
    model = tiny_model(hybrid_backbone="resnet18", img_size=64, patch_size=patch_size)
    # The deepest feature map whose stride divides the patch; the projection does the rest.
    assert model.patch_embed.backbone.feature_info.reduction() == [stride]
    assert model.patch_embed.proj.kernel_size == (kernel, kernel)
    assert model.eval()(torch.randn(1, 3, 64, 128)).shape == (1, 5)


def test_what_lies_behind_the_feature_map_is_not_built() -> None:
    model = randomise(tiny_model(hybrid_backbone="resnet18", img_size=64, patch_size=16), std=0.2)
    step(model, torch.randn(2, 3, 64, 64))
    assert without_gradient(model) == biases_of_pos_proj(model)


def test_a_timm_model_takes_the_channels() -> None:
    model = tiny_model(hybrid_backbone="resnet18", img_size=32, patch_size=8, in_chans=1).eval()
    assert model(torch.randn(1, 1, 32, 32)).shape == (1, 5)


def test_names_that_cannot_be_a_stem() -> None:
    with pytest.raises(ValueError, match="got 'resnet_eighteen', expected 'conv' or the name of a timm model"):
        tiny_model(hybrid_backbone="resnet_eighteen")
    with pytest.raises(
        ValueError, match=r"'resnet18' has feature strides \[2, 4, 8, 16, 32\], none divides patch_size 7"
    ):
        tiny_model(hybrid_backbone="resnet18", img_size=56, patch_size=7)


def test_the_convolutional_stem_overlaps_and_keeps_images_apart() -> None:
    model = randomise(tiny_model(hybrid_backbone="conv", img_size=16, patch_size=4), std=0.2).eval()
    assert [layer.stride for layer in model.patch_embed.backbone if isinstance(layer, nn.Conv2d)] == [(2, 2), (2, 2)]
    x = torch.randn(2, 3, 16, 16)
    tokens, grid = model.embed(x)
    assert grid == (4, 4)
    alone, _ = model.embed(x[:1])
    assert torch.allclose(tokens[:1], alone, atol=1e-6)

    convolutions = model.patch_embed.backbone  # without its norms, which see the whole image
    for index, layer in enumerate(convolutions):
        if isinstance(layer, nn.GroupNorm):
            convolutions[index] = nn.Identity()
    other = x.clone()
    other[:, :, 3, 3] += 1.0  # the last pixel of the first patch
    changed = (model.embed(other)[0] - model.embed(x)[0]).abs().amax((0, 2)) > 1e-6
    assert changed.view(4, 4).tolist() == [[True, True, False, False]] * 2 + [[False] * 4] * 2


@pytest.mark.parametrize(("size", "near"), [(1, "2"), (6, "4 or 8"), (12, "8 or 16")])
def test_a_convolutional_stem_halves(size: int, near: str) -> None:
    with pytest.raises(ValueError, match=f"for a patch size of {size}, expected a power of two; nearest: {near}$"):
        tiny_model(hybrid_backbone="conv", img_size=24, patch_size=size)
