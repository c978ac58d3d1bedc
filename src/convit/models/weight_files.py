"""The tensors of a file of weights, by parameter name: the authors', timm's and our own.

Only tensors are read from a file. Nothing that it names is imported, nothing in it is run.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convit.errors import InputError
from convit.files import MOST_JSON, kind_of, opened, parse_json, read
from convit.grid import Grid
from convit.models.pickles import LeftOut, read_pickle
from convit.models.published import WEIGHTS_FILE
from convit.models.seal import read_sealed

CONFIG_FILE = "config.json"
EMA_ENTRIES = ("state_dict_ema", "model_ema", "ema", "ema_state_dict", "model_ema_state_dict", "params_ema")
WEIGHT_ENTRIES = ("state_dict", "model", "model_state_dict", "params")
PREFIXES = ("module.", "_orig_mod.", "model.", "ema_model.")
"""Before every name: of models in parallel, compiled, within a module of Lightning, averaged."""
WRAPPERS = re.compile(r"(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.")
"""Anywhere in a name: of parts that are compiled, sharded or recomputed."""
ANCHOR = "blocks.0.norm1.weight"
"""A parameter that every ConViT has: what is before it in a file is what somebody's program calls the model."""
COUNTERS = ("n_averaged", "initted", "step")
"""Beside averaged weights: how many they are the average of."""


def read_weights(path: str | Path, *, ema: bool = True) -> tuple[dict[str, Tensor], Grid | None]:
    """The tensors of a file by parameter name, on the CPU, and the grid of their position embeddings if it says.

    Raises:
        InputError: as :func:`convit.models.checkpoints.load_weights`.
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
        tensors = read_sealed(path)
        return own_names(tensors), _grid_beside(path, tensors)
    content = _weights_in(
        read_pickle(path), (*EMA_ENTRIES, *WEIGHT_ENTRIES) if ema else (*WEIGHT_ENTRIES, *EMA_ENTRIES)
    )
    if not _are_weights(content):
        kind = "an object" if isinstance(content, LeftOut) else f"a {type(content).__name__}"
        found = f"entries {some_names(content, 5)}" if isinstance(content, Mapping) else kind
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
    bare = {WRAPPERS.sub("", name): tensor for name, tensor in weights.items()}
    weights = bare if len(bare) == len(weights) else dict(weights)
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
            raise InputError(
                f"{path}: {printable_name(name)} is not stored as an ordinary tensor; expected plain weights"
            )


def _is_safetensors(path: Path) -> bool:
    """Whether it is one by its name, or by its content under another. (A pickle under this name is none: who gives a
    file the name of the safe format relies on it.)"""
    if path.suffix.lower() == ".safetensors":
        return True
    with opened(path) as stream:
        beginning = stream.read(9)
    return beginning[8:] == b"{" and int.from_bytes(beginning[:8], "little") <= path.stat().st_size


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


def some_names(names: Iterable[object], count: int = 2) -> str:
    """The first names, for a message."""
    names = list(names)
    return ", ".join(printable_name(str(name)) for name in names[:count]) + (", ..." if len(names) > count else "")


def printable_name(name: str) -> str:
    """A name out of a file, on one line and without what a terminal would obey."""
    return name if name.isprintable() else repr(name)
