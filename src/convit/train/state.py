"""The exact state of a run on disk: written whole or not at all, and checked when it is read."""

import hashlib
import json
import os
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from convit.errors import InputError

KEEP = 2
"""How many states are kept: should the newest be damaged, the one before it is there."""


@dataclass(slots=True)
class Progress:
    """Where a run stands. With the weights and the optimiser's moments this is all: everything random is drawn from
    (seed, epoch, position)."""

    epoch: int = 0
    """Epochs that are complete."""
    step: int = 0
    """Steps that are complete in the epoch after those."""
    seconds: float = 0.0
    """Time spent in the unfinished epoch."""
    loss_sum: float = 0.0
    """Sum of the losses of its steps."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """One record per complete epoch: the lines of ``metrics.jsonl``."""


def save_state(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> Path:
    """Writes a state into ``folder`` and removes those that are too old.

    The files are written and synced under a temporary name, which is then renamed.

    Raises:
        OSError: the disk is full or read-only; the states that were there still are.
    """
    name = f"epoch-{progress.epoch:04d}-step-{progress.step:06d}"
    temporary = folder / f".{name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    optimizer_state = optimizer.state_dict()
    tensors = {f"model.{key}": value for key, value in model.state_dict().items()}
    for index, entries in optimizer_state["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in entries.items()}
    content = safetensors.torch.save({key: value.detach().cpu().contiguous() for key, value in tensors.items()})
    meta = {
        "progress": asdict(progress),
        "param_groups": optimizer_state["param_groups"],
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    body = json.dumps(meta)
    check = hashlib.sha256(body.encode()).hexdigest()
    final = folder / name
    try:
        for file, data in (("tensors.safetensors", content), ("state.json", f"{check}\n{body}\n".encode())):
            with (temporary / file).open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)  # half a state is no use, and a full disk needs its room
        raise
    _sync(folder)
    for old in states(folder)[KEEP:]:
        shutil.rmtree(old)
    return final


def states(folder: Path) -> list[Path]:
    """The states in ``folder``, newest first."""
    found = folder.glob("epoch-*-step-*") if folder.is_dir() else ()
    return sorted(found, key=lambda path: [int(number) for number in re.findall(r"\d+", path.name)], reverse=True)


def load_state(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Progress, list[str]]:
    """Puts the newest whole state of ``folder`` into ``model`` and ``optimizer``.

    Returns:
        Where the run stands, and one line for each damaged state that was passed over.

    Raises:
        InputError: none is whole.
    """
    damaged = []
    for path in states(folder):
        try:
            meta, tensors = _read(path)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            damaged.append(f"{path}: damaged ({' '.join(str(error).split())[:120]}); taking the state before it")
            continue
        _restore(meta, tensors, model, optimizer)
        return Progress(**meta["progress"]), damaged
    raise InputError(f"{folder}: {len(damaged)} states, none of them whole; expected one to resume from")


def _read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    check, body = (path / "state.json").read_text().rstrip("\n").split("\n", 1)
    if hashlib.sha256(body.encode()).hexdigest() != check:
        raise ValueError("checksum of state.json")
    meta = json.loads(body)
    content = (path / "tensors.safetensors").read_bytes()
    if hashlib.sha256(content).hexdigest() != meta["sha256"]:
        raise ValueError("checksum of tensors.safetensors")
    return meta, safetensors.torch.load(content)


def _restore(
    meta: dict[str, Any], tensors: dict[str, torch.Tensor], model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    entries: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            entries.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": entries, "param_groups": meta["param_groups"]})


def _sync(folder: Path) -> None:
    """Makes a rename in ``folder`` last through a power cut, where the system can open folders."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
