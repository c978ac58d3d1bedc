"""From an image to patches: the patch embedding, or a CNN in its place, and the grid of the patches."""

import itertools
from typing import Any

import timm
import torch
from timm.layers import HybridEmbed, PatchEmbed
from torch import nn

from convit.choices import CONV_STEM, PATCH_STEM
from convit.grid import Grid


def patch_grid(height: int, width: int, patch_size: int) -> Grid:
    """The grid of patches of an image of ``height x width`` pixels.

    Raises:
        ValueError: the patch does not divide the size; names the nearest sizes that work.

    >>> patch_grid(224, 160, patch_size=16)
    Grid(height=14, width=10)
    """
    if not torch.jit.is_scripting():
        _check_image_size(height, width, patch_size)
    return Grid(height // patch_size, width // patch_size)


def _check_image_size(height: int, width: int, patch_size: int) -> None:
    if height < patch_size or width < patch_size or height % patch_size or width % patch_size:
        near = []
        for round_up in (0, patch_size - 1):
            size = [max(patch_size, (side + round_up) // patch_size * patch_size) for side in (height, width)]
            near.append(f"{size[0]} x {size[1]}")
        raise ValueError(
            f"image size: got {height} x {width}, expected multiples of the patch size {patch_size}; "
            f"nearest: {' or '.join(dict.fromkeys(near))}"
        )


class ConvStem(nn.Sequential):
    """Convolutions of 3 x 3 that overlap, in place of a linear map of each patch (Xiao et al. 2021, "Early
    convolutions help transformers see better").

    Each halves height and width, until one token covers ``patch_size`` pixels a side, and doubles the channels, up to
    the width of the model; each is followed by a norm and a GELU. The norm is over all channels and positions of an
    image, so differences between positions are kept, and an image's output does not depend on the others of its batch;
    with ``batch_norm`` it is batch norm, as in CNNs.

    Args:
        patch_size: pixels a side that one token covers, a power of two.
        in_chans: channels of the images.
        embed_dim: C, the channels of the last convolution.
        batch_norm: batch norm in place of the norm over an image.

    Raises:
        ValueError: a patch size that is no power of two.

    >>> ConvStem(patch_size=4, embed_dim=96)(torch.randn(2, 3, 32, 32)).shape
    torch.Size([2, 96, 8, 8])
    """

    def __init__(
        self,
        patch_size: int,
        in_chans: int = 3,
        embed_dim: int = 192,
        batch_norm: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        halvings = patch_size.bit_length() - 1
        if patch_size < 2 or patch_size != 1 << halvings:
            near = sorted({max(2, 1 << halvings), 2 << halvings})
            raise ValueError(
                f"hybrid_backbone: got {CONV_STEM!r} for a patch size of {patch_size}, expected a power of two; "
                f"nearest: {' or '.join(map(str, near))}"
            )
        channels = [in_chans, *(max(1, embed_dim >> left) for left in reversed(range(halvings)))]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(channels):
            dd: dict[str, Any] = {"device": device, "dtype": dtype}
            norm = nn.BatchNorm2d(after, **dd) if batch_norm else nn.GroupNorm(1, after, **dd)
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False, **dd), norm, nn.GELU()]
        super().__init__(*layers)


def make_stem(
    backbone: str | nn.Module | None,
    img_size: tuple[int, int],
    patch_size: int,
    in_chans: int,
    embed_dim: int,
    batch_norm: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """A module from images ``(B, in_chans, H, W)`` to embedded patches ``(B, embed_dim, H / p, W / p)``.

    Args:
        backbone: None or ``"patch"`` for a linear map of each patch; or a CNN, whose feature map is projected:
            ``"conv"`` for :class:`ConvStem`, the name of a timm model with features, or a module that gives a feature
            map.
        img_size: ``(height, width)`` in pixels; other multiples of the patch size work at run time.
        patch_size: p, how many pixels a side one token covers.
        in_chans: channels of the image.
        embed_dim: width of the patches.
        batch_norm: of the convolutional stem; other CNNs have the norms that they have.

    Raises:
        ValueError: no feature map of the backbone has a stride that divides the patch size.
    """
    dd: dict[str, Any] = {"device": device, "dtype": dtype}
    embed: dict[str, Any] = {"img_size": img_size, "in_chans": in_chans, "embed_dim": embed_dim, "flatten": False}
    if backbone is None or backbone == PATCH_STEM:
        return PatchEmbed(patch_size=patch_size, strict_img_size=False, **embed, **dd)
    if backbone == CONV_STEM:
        backbone = ConvStem(patch_size, in_chans, embed_dim, batch_norm, **dd)
    elif isinstance(backbone, str):
        backbone = _features_of(backbone, patch_size, in_chans, **dd)
    stem = HybridEmbed(backbone, patch_size=1, strict_img_size=False, **embed, **dd)
    stride = max(side // cells for side, cells in zip(img_size, stem.feature_size, strict=True))
    if patch_size % stride or (img_size[0] // stride, img_size[1] // stride) != tuple(stem.feature_size):
        raise ValueError(
            f"hybrid_backbone: its feature map is {stem.feature_size[0]} x {stem.feature_size[1]} at {img_size[0]} x "
            f"{img_size[1]} pixels, a stride of {stride}; expected one that divides patch_size, {patch_size}"
        )
    if patch_size != stride:
        stem.set_input_size(patch_size=patch_size // stride)
    return stem


def _features_of(name: str, patch_size: int, in_chans: int, **dd: Any) -> nn.Module:
    """The timm model of that name, up to its deepest feature map whose stride divides the patch size."""
    if not timm.is_model(name):
        raise ValueError(
            f"hybrid_backbone: got {name!r}, expected {CONV_STEM!r} or the name of a timm model, such as 'resnet18'"
        )
    info: Any = timm.create_model(name, features_only=True, in_chans=in_chans, device="meta").feature_info
    strides = info.reduction()
    fitting = [level for level, stride in enumerate(strides) if patch_size % stride == 0]
    if not fitting:
        raise ValueError(
            f"hybrid_backbone: {name!r} has feature strides {strides}, none divides patch_size {patch_size}"
        )
    return timm.create_model(name, features_only=True, in_chans=in_chans, out_indices=fitting[-1:], **dd)
