"""Weights from files: the authors', timm's and our own, also at another resolution.

Only tensors are read from a file. Nothing that it names is imported, nothing in it is run.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from convit.errors import InputError
from convit.files import MOST_JSON, kind_of, opened, parse_json, read
from convit.grid import Grid
from convit.models.convit import ConViT
from convit.models.pickles import LeftOut, read_pickle
from convit.models.published import WEIGHTS_FILE
from convit.models.seal import read_sealed

CONFIG_FILE = "config.json"
EMA_ENTRIES = ("state_dict_ema", "model_ema", "ema", "ema_state_dict", "model_ema_state_dict", "params_ema")
WEIGHT_ENTRIES = ("state_dict", "model", "model_state_dict", "params")
PREFIXES = ("module.", "_orig_mod.", "model.", "ema_model.")
"""Before every name: of models in parallel, compiled, within a module of Lightning, averaged."""
WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_forward_module.")
"""Anywhere in a name: of parts that are compiled, sharded or recomputed."""
ANCHOR = "blocks.0.norm1.weight"
"""A parameter that every ConViT has: what is before it in a file is what somebody's program calls the model."""
REAL = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
"""The types of weights."""
COUNTERS = ("n_averaged", "initted", "step")
"""Beside averaged weights: how many they are the average of."""
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


def read_weights(path: str | Path, *, ema: bool = True) -> tuple[dict[str, Tensor], Grid | None]:
    """The tensors of a file by parameter name, on the CPU, and the grid of their position embeddings if it says.

    Raises:
        InputError: as :func:`load_weights`.
    """
    path = Path(path)
    try:
        is_folder = path.is_dir()
        path = path / WEIGHTS_FILE if is_folder else path
        exists = path.is_file()
    except OSError:  # a name too long, say
        is_folder = exists = False
    if not exists:
        found = f"no {WEIGHTS_FILE} in it" if is_folder else kind_of(path)
        where = path.parent if is_folder else path
        raise InputError(f"{where}: {found}; expected weights as .safetensors or .pth, or a run folder")
    if _is_safetensors(path):
        return _read_safetensors(path)
    content = _weights_in(
        read_pickle(path), (*EMA_ENTRIES, *WEIGHT_ENTRIES) if ema else (*WEIGHT_ENTRIES, *EMA_ENTRIES)
    )
    if not _are_weights(content):
        kind = "an object" if isinstance(content, LeftOut) else f"a {type(content).__name__}"
        found = f"entries {_some(content, 5)}" if isinstance(content, Mapping) else kind
        raise InputError(f"{path}: no weights in it (found {found}); expected tensors by name, or under 'model'")
    _check_plain(path, content)
    return own_names(content), None


def _weights_in(content: Any, entries: Sequence[str]) -> Any:
    """The entry of a checkpoint that has the weights, or the whole of it.

    Averaged weights that are none, such as ``{"decay": 0.99}`` alone, are passed over.
    """
    for entry in entries:
        held = content.get(entry) if isinstance(content, Mapping) else None
        if isinstance(held, Mapping) and held:
            inner = held if _are_weights(held) else _weights_in(held, WEIGHT_ENTRIES)
            if entry not in EMA_ENTRIES or _are_weights(inner):
                return inner
    if isinstance(content, Mapping) and not _are_weights(content):
        held = [value for value in content.values() if _are_weights(value)]
        return held[0] if len(held) == 1 else content  # 'net', 'backbone', 'module', ...; of two, which is meant?
    return content


def _are_weights(content: object) -> bool:
    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items())
    )


def own_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights without the :data:`PREFIXES` and :data:`COUNTERS` that training programs put around a model.

    >>> list(own_names({"n_averaged": torch.tensor(3), "module.model.cls_token": torch.zeros(1)}))
    ['cls_token']
    """
    weights = _without(weights, WRAPPERS)
    while prefix := next((p for p in PREFIXES if any(name.startswith(p) for name in weights)), None):
        weights = {name: tensor for name, tensor in weights.items() if name not in COUNTERS or tensor.numel() > 1}
        bare = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
        if len(bare) < len(weights):
            return weights  # two models in one file: which is meant?
        weights = bare
    anchors = [name for name in weights if name.endswith(f".{ANCHOR}")]
    if len(anchors) == 1 and ANCHOR not in weights:
        prefix = anchors[0].removesuffix(ANCHOR)
        bare = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
        return bare if len(bare) == len(weights) else weights
    return weights


def _without(weights: Mapping[str, Tensor], wrappers: Sequence[str]) -> dict[str, Tensor]:
    """The weights without some parts of their names; as they are where two would have one name."""
    bare = {}
    for name, tensor in weights.items():
        for wrapper in wrappers:
            name = name.replace(wrapper, "")
        bare[name] = tensor
    return bare if len(bare) == len(weights) else dict(weights)


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


def _check_plain(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Refuses what is no ordinary tensor, and one that claims to be larger than what is stored of it."""
    for name, tensor in weights.items():
        plain = (
            not tensor.is_nested
            and tensor.layout == torch.strided
            and tensor.device.type == "cpu"
            and not tensor.is_quantized
        )
        if not plain or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise InputError(f"{path}: {_printable(name)} is not stored as an ordinary tensor; expected plain weights")


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
            parts.append(f"{len(names)} {what} ({_some(names)})")
    if reshaped:
        shapes = [f"{_printable(n)} {tuple(weights[n].shape)} for {tuple(ours[n].shape)}" for n in reshaped[:2]]
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


def _some(names: Iterable[object], count: int = 2) -> str:
    names = list(names)
    return ", ".join(_printable(str(name)) for name in names[:count]) + (", ..." if len(names) > count else "")


def _printable(name: str) -> str:
    """A name out of a file, on one line and without what a terminal would obey."""
    return name if name.isprintable() else repr(name)


def _is_safetensors(path: Path) -> bool:
    """Whether it is one by its name, or by its content under another. (A pickle under this name is none: who gives a
    file the name of the safe format relies on it.)"""
    if path.suffix.lower() == ".safetensors":
        return True
    with opened(path) as stream:
        beginning = stream.read(9)
    return beginning[8:] == b"{" and int.from_bytes(beginning[:8], "little") <= path.stat().st_size


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], Grid | None]:
    """The tensors, and the grid from the ``config.json`` beside them."""
    tensors = read_sealed(path)
    return own_names(tensors), _grid_beside(path, tensors)


def _grid_beside(path: Path, tensors: Mapping[str, Tensor]) -> Grid | None:
    """The grid that a ``config.json`` in the same folder tells of, if there is one and it fits the patches."""
    if path.name != WEIGHTS_FILE:
        return None
    try:
        _, height, width = parse_json(read(path.parent / CONFIG_FILE, MOST_JSON))["pretrained_cfg"]["input_size"]
        _, count, _ = tensors["pos_embed"].shape
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not (type(height) is type(width) is int and 0 < count <= height * width):
        return None
    patch = math.isqrt(height * width // count)
    grid = Grid(height // patch, width // patch)
    return grid if min(grid) > 0 and grid.num_patches == count else None
