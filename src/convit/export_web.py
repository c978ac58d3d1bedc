"""A classifier as one web page: weights, preprocessing and class names in an HTML file that needs no other.

The page runs the model in JavaScript (``pages/classifier/``). The weights are one gzip stream, which begins with the
crc32 of the facts in the page (class names, preprocessing, thresholds). Then tensor after tensor, each as planes, first
the lowest byte of every value, little-endian, then the next, as the high bytes of numbers of like size compress better.
Matrices of blocks and head are fp16, which has 11 binary digits; the stem and the position embedding are fp32 rounded
to 14, without the lowest byte, which is 0 then; all else is fp32.

Shapes: C width, h heads, p pixels along a patch.
"""

import copy
import gzip
import importlib.metadata
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm.layers
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from convit import files, pages
from convit.classifier import Classifier
from convit.errors import InputError
from convit.export import checked_path, copied_model
from convit.layers import Block, GatedPositionalSelfAttention, PositionalSelfAttention, SelfAttention, TokenBatchNorm
from convit.models import ConViT
from convit.models.position import position_embedding
from convit.models.stem import ConvStem, patch_grid

MOST_DIFFERENCE = 1e-3
"""The largest change of a logit by rounding the weights to fp16, as a part of the largest logit; above it the page
holds them in fp32."""
IMAGES = 8
"""Images of noise, and as many smooth ones, that this is measured on."""
SCRIPTS = (
    *("attention/bytes.js", "attention/position.js", "attention/values.js", "attention/charts.js"),
    *("attention/pointing.js", "attention/page.js", "classifier/matrix.js", "classifier/model.js"),
    *("classifier/relevance.js", "classifier/weights.js", "classifier/resize.js", "classifier/live.js"),
    *("classifier/drawing.js", "classifier/photos.js"),
)
"""Parts of the page's one script, in this order."""
STYLES = ("attention/page.css", "classifier/page.css")


@dataclass(frozen=True, kw_only=True, slots=True)
class WebPage:
    """A page that was written."""

    path: Path
    bytes: int
    weights: str
    """``"fp16"``, or ``"fp32"`` where fp16 would change an answer."""
    difference: float
    """Largest change of a logit by fp16 weights, as a part of the largest logit, on random images."""


def export_web(classifier: Classifier, path: str | Path) -> WebPage:
    """Writes one HTML file that classifies photos in a browser, without a server or any request.

    Args:
        classifier: what to export.
        path: where to, ending in ``.html``; an older file is replaced.

    Raises:
        InputError: a model that the page has no code for, weights that are not finite, or a wrong ending.
    """
    path = checked_path(path, ".html")
    document, weights, difference = web_page(classifier)
    files.write(path, document)
    return WebPage(path=path, bytes=len(document.encode()), weights=weights, difference=difference)


def web_page(classifier: Classifier) -> tuple[str, str, float]:
    """The page, the type of its weights, and the largest change of a logit by fp16; see :class:`WebPage`."""
    if classifier.preprocess.full_scale is not None:
        raise InputError(
            "format: got a web page for a model of pictures of more than 8 bits, which browsers read as 8 bits, "
            "expected --format onnx; or a run on pictures of 8 bits: 'convit check' names the others"
        )
    classifier.check_single()
    model = copied_model(classifier)
    size = classifier.preprocess.image_size
    spec, tensors = described(model, size)
    difference = _rounding(model, size)
    half = difference <= MOST_DIFFERENCE
    listed, content = coded(tensors, half)
    data = {
        "title": classifier.model_name,
        "version": importlib.metadata.version("convit"),
        "classNames": list(classifier.class_names),
        "temperature": classifier.temperature,
        "rejectBelow": dict(classifier.calibration.reject_below) if classifier.calibration else {},
        "preprocess": classifier.preprocess.to_dict(),
        "model": spec,
        "tensors": listed,
        "inspections": [],
    }
    checksum = zlib.crc32(pages.json_text(data).encode()).to_bytes(4, "little")
    document = pages.document(
        title=classifier.model_name,
        scripts=SCRIPTS,
        styles=STYLES,
        data=data,
        intro="classifier/intro.html",
        payload=pages.data_element("weights", gzip.compress(checksum + content, 9, mtime=0)),
        policy={"img-src": "blob:", "media-src": "blob:"},
    )
    return document, "fp16" if half else "fp32", difference


def coded(tensors: dict[str, Tensor], half: bool) -> tuple[list[list[Any]], bytes]:
    """``[name, count, size]`` of every tensor, size in bytes a value, and their bytes; see the top of this file."""
    listed: list[list[Any]] = []
    planes: list[bytes] = []
    for name, tensor in tensors.items():
        size = _size(name, tensor) if half else 4
        values = tensor.numpy().astype("<f2" if size == 2 else "<f4").ravel()
        if size == 3:
            values = _shortened(values)
        listed.append([name, values.size, size])
        planes.append(values.view(np.uint8).reshape(values.size, -1)[:, -size:].T.tobytes())
    return listed, b"".join(planes)


def _size(name: str, tensor: Tensor) -> int:
    """Bytes for a value. Most values are in the matrices of blocks and head. The stem has more digits: photos are
    smooth, so that its errors add up; in fp16 they made two thirds of the difference. The weights of positions have all
    digits: they are multiplied by squares of offsets."""
    if tensor.ndim < 2 or name.endswith((".position", ".pos_proj.weight")):
        return 4
    if name.startswith(("blocks.", "head.")):
        return 2
    return 3 if name.startswith(("stem.", "patch_embed.", "pos_embed")) else 4


def _shortened(values: Any) -> Any:
    """fp32 of 24 binary digits rounded to the nearest of 14."""
    return ((values.view("<u4") + np.uint32(1 << 9)) & np.uint32(0xFFFFFC00)).view("<f4")


@torch.inference_mode()
def _rounding(model: ConViT, image_size: tuple[int, int]) -> float:
    """The largest change of a logit when weights are shortened, as a part of the image's largest logit; on random
    images, of noise and smooth as photos are."""
    rounded = copy.deepcopy(model)
    for name, parameter in rounded.named_parameters():
        size = _size(name, parameter)
        if size == 2:
            parameter.copy_(parameter.half().float())
        elif size == 3:
            parameter.copy_(torch.from_numpy(_shortened(parameter.numpy())))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(IMAGES, 3, *image_size, generator=generator)
    smooth = functional.interpolate(torch.randn(IMAGES, 3, 6, 6, generator=generator), image_size, mode="bicubic")
    worst = 0.0
    for image in torch.cat((noise, smooth)).split(1):
        expected, found = model(image), rounded(image)
        if not expected.isfinite().all():
            raise InputError(
                "model: its answers are not finite numbers, expected one that was trained without diverging"
            )
        if not found.isfinite().all():  # a weight above 65504
            return math.inf
        worst = max(worst, ((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30)).item())
    return worst


def described(model: ConViT, image_size: tuple[int, int]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The model as ``model.js`` takes it: its structure, and its tensors by name.

    Raises:
        InputError: a part that the page has no code for.
    """
    tensors: dict[str, Tensor] = {}
    norms: dict[str, dict[str, Any]] = {}

    def keep_linear(name: str, module: Any) -> None:
        _only(name, module, nn.Linear)
        tensors[f"{name}.weight"] = module.weight
        if module.bias is not None:
            tensors[f"{name}.bias"] = module.bias

    def keep_norm(name: str, module: Any) -> None:
        _only(name, module, nn.LayerNorm, timm.layers.LayerNorm, TokenBatchNorm, nn.BatchNorm2d, nn.GroupNorm)
        if isinstance(module, TokenBatchNorm | nn.BatchNorm2d):
            mean, variance = module.running_mean, module.running_var
            if mean is None or variance is None or module.weight is None:
                raise _unknown(name, module)
            scale = module.weight / torch.sqrt(variance + module.eps)
            shift, kind = module.bias - mean * scale, "affine"
        else:
            if module.weight is None or module.bias is None or getattr(module, "num_groups", 1) != 1:
                raise _unknown(name, module)
            scale, shift, kind = module.weight, module.bias, "image" if isinstance(module, nn.GroupNorm) else "layer"
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = scale, shift
        norms[name] = {"kind": kind, "eps": module.eps}

    stem: list[dict[str, Any]] = []
    for name, convolution, norm in _stem(model):
        # (out, in, i, j) to (out, i, j, in): the page has the channels of a pixel side by side.
        tensors[f"{name}.weight"] = convolution.weight.permute(0, 2, 3, 1).flatten(1)
        if convolution.bias is not None:
            tensors[f"{name}.bias"] = convolution.bias
        kernel, stride, padding = convolution.kernel_size[0], convolution.stride[0], int(convolution.padding[0])
        norm_name = None if norm is None else f"{name}.norm"
        if norm_name is not None:
            keep_norm(norm_name, norm)
        stem.append({"name": name, "kernel": kernel, "stride": stride, "padding": padding, "norm": norm_name})
    if model.pos_embed is not None:
        grid = patch_grid(*image_size, model.patch_size)
        tensors["pos_embed"] = position_embedding(model.pos_embed, grid, model.grid_size)[0]
    if model.cls_token is not None:
        tensors["cls_token"] = model.cls_token[0, 0]
    blocks: list[Any] = list(model.blocks)
    for index, block in enumerate(blocks):
        name = f"blocks.{index}"
        _only(name, block, Block)
        keep_norm(f"{name}.norm1", block.norm1)
        keep_norm(f"{name}.norm2", block.norm2)
        _keep_attention(f"{name}.attn", block.attn, tensors)
        keep_linear(f"{name}.attn.proj", block.attn.proj)
        _only(f"{name}.mlp", block.mlp, timm.layers.Mlp)
        _only(f"{name}.mlp.act", block.mlp.act, nn.GELU)
        _only(f"{name}.mlp.norm", block.mlp.norm, nn.Identity)
        keep_linear(f"{name}.mlp.fc1", block.mlp.fc1)
        keep_linear(f"{name}.mlp.fc2", block.mlp.fc2)
    keep_norm("norm", model.norm)
    keep_linear("head", model.head)
    spec = {
        "dim": model.embed_dim,
        "heads": blocks[0].attn.num_heads,
        "prefixAt": None if model.cls_token is None else model.class_token_at,
        "pool": model.global_pool,
        "patchSize": model.patch_size,
        "stem": stem,
        "blocks": [{"kind": block.attn.kind} for block in blocks],
        "norms": norms,
    }
    return spec, {name: tensor.detach().float().contiguous() for name, tensor in tensors.items()}


def _keep_attention(name: str, layer: Any, tensors: dict[str, Tensor]) -> None:
    """Queries, keys and values as one matrix (3 C, C); where a head looks by position, (h, 3); its gates."""
    bias: Tensor | None
    if type(layer) is SelfAttention:
        _only(f"{name}.qkv", layer.qkv, nn.Linear)
        weight, bias = layer.qkv.weight, layer.qkv.bias
    elif type(layer) in (GatedPositionalSelfAttention, PositionalSelfAttention):
        _only(f"{name}.qk", layer.qk, nn.Linear)
        _only(f"{name}.v", layer.v, nn.Linear)
        weight = torch.cat((layer.qk.weight, layer.v.weight))
        bias = None if layer.qk.bias is None else torch.cat((layer.qk.bias, layer.v.bias))
        tensors[f"{name}.position"] = layer.position_weight()
        if type(layer) is GatedPositionalSelfAttention:
            tensors[f"{name}.gates"] = layer.gates
    else:
        raise _unknown(name, layer)
    tensors[f"{name}.qkv.weight"] = weight
    if bias is not None:
        tensors[f"{name}.qkv.bias"] = bias


def _stem(model: ConViT) -> Iterator[tuple[str, nn.Conv2d, nn.Module | None]]:
    """The stem's convolutions by name, each with the norm, and GELU, that follow it."""
    embed: Any = model.patch_embed
    backbone = getattr(embed, "backbone", None)
    if isinstance(backbone, ConvStem):
        parts = list(backbone)
        for at in range(0, len(parts), 3):
            yield f"stem.{at // 3}", _convolution(parts[at]), parts[at + 1]
    elif backbone is not None:
        raise InputError(
            f"format: got web for a model whose stem is a {type(backbone).__name__}, expected the patch embedding or "
            "the convolutional stem; --format onnx takes any"
        )
    _only("patch_embed.norm", getattr(embed, "norm", nn.Identity()), nn.Identity)
    yield "stem.proj", _convolution(embed.proj), None


def _convolution(module: nn.Module) -> nn.Conv2d:
    _only("patch_embed", module, nn.Conv2d)
    assert isinstance(module, nn.Conv2d)
    square = all(len(set(pair)) == 1 for pair in (module.kernel_size, module.stride, module.padding))
    if not square or module.groups != 1 or set(module.dilation) != {1}:
        raise _unknown("patch_embed", module)
    return module


def _only(name: str, module: nn.Module, *kinds: type[nn.Module]) -> None:
    """Only what the page's code was written for, and nothing that hangs on it."""
    if type(module) not in kinds or module._forward_hooks or module._forward_pre_hooks:
        raise _unknown(name, module)


def _unknown(name: str, module: nn.Module) -> InputError:
    return InputError(
        f"format: got web for a model whose {name} is a {type(module).__name__} of another kind, expected the layers "
        "of convit.create_model; --format onnx takes any"
    )
