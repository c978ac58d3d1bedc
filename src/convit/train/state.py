"""The exact state of a run on disk: written whole or not at all, and checked when it is read."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn
from torch.distributed.tensor import DTensor

from convit.errors import InputError
from convit.train.parallel import in_parts, whole

KEEP = 2
"""How many states are kept: should the newest be damaged, the one before it is there."""
DAMAGE = (OSError, ValueError, KeyError, SafetensorError)
"""What reading a state raises that is not whole."""


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


@dataclass(slots=True)
class Parts:
    """What a state holds besides the progress: all of a run that is numbers, and which run it is."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    ema: nn.Module | None = None
    """The moving average of the weights, if there is one."""
    scaler: torch.amp.GradScaler | None = None
    """The loss scale of fp16; one that is not enabled has no state."""
    run: str | None = None
    """Which run they are of, as its ``identity.json`` says; states of others are passed over."""
    known: set[Path] = field(default_factory=set)
    """States of it that this process wrote, or read whole: they are large, and not read again."""

    @property
    def sharded(self) -> bool:
        """Whether every process has a part of each tensor."""
        return any(isinstance(parameter, DTensor) for parameter in self.model.parameters())


def tensors_of(parts: Parts) -> dict[str, torch.Tensor]:
    """All tensors of a state, whole, on the CPU; where a model is in parts this takes all processes."""
    tensors = {f"model.{key}": value for key, value in parts.model.state_dict().items()}
    if parts.ema is not None:
        tensors |= {f"ema.{key}": value for key, value in parts.ema.state_dict().items()}
    for index, entries in parts.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in entries.items()}
    return {key: whole(value.detach()).cpu().contiguous() for key, value in tensors.items()}


def save_state(folder: Path, parts: Parts, progress: Progress, tensors: dict[str, torch.Tensor] | None = None) -> Path:
    """Writes a state into ``folder``; once there are ``KEEP`` whole ones of the run, its others are removed.

    States of other runs stay, but for one of the same step, whose place is taken. The files are written and synced
    under a temporary name, which is then renamed. A whole state of the same step is kept as it is: it is the same. How
    many processes trained it does not show in it.

    Args:
        folder: where to.
        parts: all that is numbers.
        progress: where the run stands.
        tensors: what :func:`tensors_of` gave, if it has been asked already.

    Raises:
        OSError: the disk is full or read-only; the states that were there still are.
    """
    name = f"epoch-{progress.epoch:04d}-step-{progress.step:06d}"
    final, temporary = folder / name, folder / f".{name}.tmp"
    if _is_whole(final, parts.run):
        return final
    for left in folder.glob(".epoch-*.tmp"):  # by a kill; a run that is resumed may never save at that step again
        shutil.rmtree(left, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        for file, data in _files(parts, progress, tensors_of(parts) if tensors is None else tensors):
            with (temporary / file).open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
        shutil.rmtree(final, ignore_errors=True)  # a damaged one
        temporary.rename(final)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)  # half a state is no use, and a full disk needs its room
        raise
    sync(folder)
    parts.known.add(final)
    _remove_old(folder, final, parts)
    return final


def _remove_old(folder: Path, newest: Path, parts: Parts) -> None:
    """A damaged state counts for nothing, so it goes when there are enough without it."""
    kept = [newest, *islice((path for path in own_states(folder, parts) if path != newest), KEEP - 1)]
    if len(kept) == KEEP:
        for old in states(folder):
            if old not in kept and not _is_foreign(old, parts.run):
                shutil.rmtree(old)


def _files(parts: Parts, progress: Progress, tensors: dict[str, torch.Tensor]) -> list[tuple[str, bytes]]:
    """Names and contents of the files of a state."""
    content = safetensors.torch.save(tensors)
    meta = {
        "progress": asdict(progress),
        "param_groups": parts.optimizer.state_dict()["param_groups"],
        "scaler": parts.scaler.state_dict() if parts.scaler is not None else {},
        "run": parts.run,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    body = json.dumps(meta)
    check = hashlib.sha256(body.encode()).hexdigest()
    return [("tensors.safetensors", content), ("state.json", f"{check}\n{body}\n".encode())]


def states(folder: Path) -> list[Path]:
    """The states in ``folder``, newest first."""
    found = folder.glob("epoch-*-step-*") if folder.is_dir() else ()
    return sorted(found, key=lambda path: [int(number) for number in re.findall(r"\d+", path.name)], reverse=True)


def own_states(folder: Path, parts: Parts) -> Iterator[Path]:
    """Those of them that are whole and of the run. Each is read as it is asked for, unless it is known."""
    for path in states(folder):
        if path not in parts.known and _is_whole(path, parts.run):
            parts.known.add(path)
        if path in parts.known:
            yield path


def load_state(folder: Path, parts: Parts) -> tuple[Progress, list[str]]:
    """Puts the newest whole state of ``folder`` that is of the run into ``parts``.

    Returns:
        Where the run stands, and one line for each state that was passed over.

    Raises:
        InputError: there is none.
    """
    passed, foreign = [], 0
    for path in states(folder):
        try:
            meta, tensors = _read(path)
        except DAMAGE as error:
            passed.append(f"{path}: damaged ({' '.join(str(error).split())[:120]}); taking the state before it")
            continue
        if not _is_of(meta, parts.run):
            foreign += 1
            passed.append(f"{path}: the state of another run; taking the one before it")
            continue
        _restore(meta, tensors, parts)
        parts.known.add(path)
        return Progress(**meta["progress"]), passed
    whole = f"whole and of this run ({foreign} of another one)" if foreign else "whole"
    raise InputError(f"{folder}: {len(passed)} states, none of them {whole}; expected one to resume from")


def _is_of(meta: dict[str, Any], run: str | None) -> bool:
    """Whether a state is of the run, as far as both say: earlier versions did not."""
    return run is None or meta.get("run") in (None, run)


def _read_meta(path: Path) -> dict[str, Any]:
    check, body = (path / "state.json").read_text().rstrip("\n").split("\n", 1)
    if hashlib.sha256(body.encode()).hexdigest() != check:
        raise ValueError("checksum of state.json")
    return dict(json.loads(body))


def _read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    meta = _read_meta(path)
    content = (path / "tensors.safetensors").read_bytes()
    if hashlib.sha256(content).hexdigest() != meta["sha256"]:
        raise ValueError("checksum of tensors.safetensors")
    return meta, safetensors.torch.load(content)


def _is_whole(path: Path, run: str | None) -> bool:
    try:
        meta = _read_meta(path)
        if not _is_of(meta, run):
            return False
        with (path / "tensors.safetensors").open("rb") as stream:
            return bool(hashlib.file_digest(stream, "sha256").hexdigest() == meta["sha256"])
    except DAMAGE:
        return False


def _is_foreign(path: Path, run: str | None) -> bool:
    """Whether a state says that it is of another run, whole or not."""
    try:
        return not _is_of(_read_meta(path), run)
    except DAMAGE:
        return False


def _restore(meta: dict[str, Any], tensors: dict[str, torch.Tensor], parts: Parts) -> None:
    for prefix, module in (("model.", parts.model), ("ema.", parts.ema)):
        if module is not None:
            own = module.state_dict()
            held = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            module.load_state_dict({k: in_parts(v, own[k]) if k in own else v for k, v in held.items()})
    entries: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            entries.setdefault(int(index), {})[name] = value
    parts.optimizer.load_state_dict({"state": entries, "param_groups": meta["param_groups"]})
    for parameter, state in parts.optimizer.state.items():  # in the layout of the weights, as they were before
        for name, value in state.items():
            if value.shape == parameter.shape:
                state[name] = value = in_parts(value, parameter)
                if value.stride() != parameter.stride():
                    state[name] = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
    if parts.scaler is not None and meta.get("scaler"):
        parts.scaler.load_state_dict(meta["scaler"])


def sync(folder: Path) -> None:
    """Makes a rename in ``folder`` last through a power cut, where the system can open folders."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
