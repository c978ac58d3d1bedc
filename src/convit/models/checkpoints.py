"""Weights of a file fitted to a model, also at another resolution, or refused by name."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from convit.errors import InputError
from convit.grid import Grid
from convit.models.convit import ConViT
from convit.models.weight_files import own_names, printable_name, read_weights, some_names

REAL = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
"""The types of weights."""
HEAD = ("head.weight", "head.bias")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadReport:
    """What :func:`load_weights` did, by parameter names."""

    loaded: tuple[str, ...]
    """Taken from the file."""
    resized: tuple[str, ...]
    """Taken and resized: position embeddings of another grid."""
    missing: tuple[str, ...]
    """Not in the file; unchanged."""
    unexpected: tuple[str, ...]
    """In the file, not in the model; left out."""
    reshaped: tuple[str, ...]
    """Of another shape in the file; unchanged."""


def load_weights(
    model: ConViT,
    path: str | Path,
    *,
    new_head: bool = False,
    partial: bool = False,
    ema: bool = True,
    grid: tuple[int, int] | None = None,
) -> LoadReport:
    """Loads a file of weights into a model, in place. Position embeddings are resized from the file's grid.

    Args:
        model: the model, of any image size.
        path: ``.safetensors`` (timm's or ours); ``.pth``, ``.pt``, ``.bin`` or ``.tar`` as PyTorch saves them, with the
            weights bare or under ``model``, ``state_dict`` or ``model_state_dict``; or a folder with a
            ``model.safetensors``, such as a run.
        new_head: do not load the classifier (``head``), for example for other classes.
        partial: load the parameters that fit and report the rest, in place of an error.
        ema: take averaged weights (``state_dict_ema``, ``model_ema``, ``ema``) where a file has both.
        grid: ``(height, width)`` of the patches that the file's position embeddings were trained on. By default it is
            read from the config.json beside a file of ours; for other files a square is assumed.

    Returns:
        What was loaded, and what was not.

    Raises:
        InputError: no such file; not weights; a file that contains code; weights that do not fit, by name.

    Example:
        >>> from convit import create_model
        >>> small, large = (create_model("convit_micro_patch4_32", img_size=size) for size in (32, 48))
        >>> torch.save(small.state_dict(), "small.pth")
        >>> load_weights(large, "small.pth").resized
        ('pos_embed',)
    """
    if not isinstance(model, ConViT) or not isinstance(path, str | Path):
        raise InputError(
            f"load_weights: got a {type(model).__name__} and a {type(path).__name__}, expected a model of "
            "convit.create_model and the path of a file; a state dict goes into model.load_state_dict()"
        )
    weights, known_grid = read_weights(path, ema=ema)
    ours = model.state_dict()
    check_numbers(path, ours, weights)
    if new_head:
        weights = {name: tensor for name, tensor in weights.items() if name not in HEAD}
    missing, unexpected, reshaped = _differences(ours, weights, without=HEAD if new_head else ())
    if not partial:
        _check_fit(path, model, weights, missing, unexpected, reshaped)
    resized: tuple[str, ...] = ()
    if "pos_embed" not in reshaped:
        try:
            resized = resize_positions(weights, model, grid or known_grid, str(path))
        except InputError:
            if not partial or grid is not None:
                raise
            reshaped = (*reshaped, "pos_embed")
    fitting = {name: tensor for name, tensor in weights.items() if name in ours and name not in reshaped}
    if not fitting:
        raise InputError(f"{path}: nothing in it fits the model; expected weights of a ConViT")
    model.load_state_dict(fitting, strict=False)
    return LoadReport(loaded=tuple(fitting), resized=resized, missing=missing, unexpected=unexpected, reshaped=reshaped)


def check_numbers(path: str | Path, ours: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Refuses tensors of another kind of number than the parameter: cast into place, they would be other weights. And
    those that are not finite.

    Raises:
        InputError: the first of them, by name.
    """
    for name, tensor in weights.items():
        if name not in ours:
            continue
        broken = tensor.dtype.is_floating_point or tensor.dtype.is_complex
        if tensor.dtype not in REAL if ours[name].is_floating_point() else broken:
            found, wanted = (str(dtype).removeprefix("torch.") for dtype in (tensor.dtype, ours[name].dtype))
            raise InputError(f"{path}: {name} is of {found}; expected {wanted}, as the parameter is")
        if not tensor.to(ours[name].dtype).isfinite().all():  # 1e300 is none in fp32
            raise InputError(f"{path}: {name} has numbers that are not finite; expected weights of a sound training")


def resize_positions(
    weights: dict[str, Tensor], model: ConViT, grid: tuple[int, int] | None, origin: str
) -> tuple[str, ...]:
    """Resizes the position embeddings among ``weights``, in place, to the model's grid; which were.

    Raises:
        InputError: a number of patches that is no grid, or could be several.
    """
    positions = weights.get("pos_embed")
    if positions is None or model.pos_embed is None or positions.ndim != 3:
        return ()
    count = positions.shape[1]
    if grid is None:
        grid = _guess_grid(count, model.grid_size, origin)
    if min(grid) < 1 or grid[0] * grid[1] != count:
        raise InputError(f"{origin}: {count} position embeddings, expected {grid[0]} x {grid[1]} for the grid given")
    if tuple(grid) == tuple(model.grid_size):
        return ()
    new_size = list(model.grid_size)
    weights["pos_embed"] = resample_abs_pos_embed(positions, new_size, list(grid), num_prefix_tokens=0)
    return ("pos_embed",)


def filter_pretrained(weights: dict[str, Tensor], model: ConViT) -> dict[str, Tensor]:
    """What timm's loader hands to a model, fitted to it. timm forgives a wrong depth or width; this does not.

    Raises:
        InputError: weights of another model, by name.
    """
    cfg: Any = model.pretrained_cfg
    weights = own_names(weights)
    origin = str(cfg.get("hf_hub_id") or cfg.get("file") or "the pretrained weights")
    check_numbers(origin, model.state_dict(), weights)
    stem = f"{model.first_conv}.weight"
    new_head = model.num_classes != cfg["num_classes"]
    # A head of other classes is timm's to leave out, and a stem of other channels to adapt.
    missing, unexpected, reshaped = _differences(model.state_dict(), weights, without=HEAD if new_head else ())
    reshaped = tuple(name for name in reshaped if name != stem or weights[name].ndim != 4)
    _check_fit(origin, model, weights, missing, unexpected, reshaped)
    height, width = cfg["input_size"][-2:]
    grid = (height // model.patch_size, width // model.patch_size)
    count = weights["pos_embed"].shape[1] if "pos_embed" in weights else 0
    if grid[0] * grid[1] != count == model.grid_size.num_patches:
        grid = model.grid_size  # the configuration tells of larger pictures than the model was made for
    resize_positions(weights, model, grid, origin)
    return weights


def _differences(
    ours: Mapping[str, Tensor], weights: Mapping[str, Tensor], without: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Names that are missing, unexpected, or of another shape. The number of position embeddings may differ."""

    def same(name: str) -> bool:
        shape, found = ours[name].shape, weights[name].shape
        positions = name == "pos_embed" and len(found) == 3
        return shape == found or (positions and found[0] == 1 and found[1] > 0 and shape[-1] == found[-1])

    missing = tuple(name for name in ours if name not in weights and name not in without)
    unexpected = tuple(name for name in weights if name not in ours and name not in without)
    reshaped = tuple(name for name in ours if name in weights and name not in without and not same(name))
    return missing, unexpected, reshaped


def _guess_grid(count: int, model_grid: Grid, origin: str) -> tuple[int, int]:
    """The model's grid or a square, whichever has ``count`` patches; an error if neither or two different ones do."""
    side = math.isqrt(count)
    square = side * side == count
    if count == model_grid.num_patches and (not square or model_grid.height == model_grid.width):
        return model_grid
    if not square or count == model_grid.num_patches:
        shapes = f"{side} x {side} or {model_grid.height} x {model_grid.width}" if square else "which is no square"
        raise InputError(f"{origin}: {count} position embeddings, {shapes}; expected grid=(height, width) to tell")
    return side, side


def _check_fit(
    path: str | Path,
    model: ConViT,
    weights: Mapping[str, Tensor],
    missing: tuple[str, ...],
    unexpected: tuple[str, ...],
    reshaped: tuple[str, ...],
) -> None:
    """Raises one line that names what does not fit, and what the file seems to be."""
    if not (missing or unexpected or reshaped):
        return
    if set(reshaped) <= set(HEAD) and not missing and not unexpected:
        classes = next(len(weights[name]) if weights[name].ndim else 1 for name in reshaped)
        raise InputError(
            f"{path}: its head has {classes} classes, the model's {model.num_classes}; "
            "expected the same number, or load_weights(..., new_head=True)"
        )
    ours = model.state_dict()
    parts = []
    for what, names in (("missing", missing), ("unexpected", unexpected)):
        if names:
            parts.append(f"{len(names)} {what} ({some_names(names)})")
    if reshaped:
        shapes = [f"{printable_name(n)} {tuple(weights[n].shape)} for {tuple(ours[n].shape)}" for n in reshaped[:2]]
        parts.append(f"{len(reshaped)} of another shape ({', '.join(shapes)}{', ...' if len(reshaped) > 2 else ''})")
    raise InputError(f"{path}: not the weights of this model{_describe(weights, model)}: {'; '.join(parts)}")


def _describe(weights: Mapping[str, Tensor], model: ConViT) -> str:
    """Width, depth and GPSA blocks of both, where the file seems to be a vision transformer."""
    if "cls_token" not in weights or weights["cls_token"].ndim == 0:
        return ""
    blocks = {int(found[1]) for name in weights if (found := re.match(r"blocks\.([0-9]{1,4})\.", name))}
    gpsa = sum(f"blocks.{block}.attn.pos_proj.weight" in weights for block in blocks)
    return (
        f" (the file: width {weights['cls_token'].shape[-1]}, {len(blocks)} blocks, {gpsa} with positions; "
        f"the model: width {model.embed_dim}, {len(model.blocks)} blocks, {model.local_up_to_layer} with positions)"
    )
