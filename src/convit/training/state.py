"""The exact state of a run on disk: written whole or not at all, and checked when it is read."""

import hashlib
import json
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

from convit.errors import InputError, brief, one_line
from convit.files import MOST_JSON, opened, parse_json, read, replacing_folder
from convit.training.optimizers import kept_of
from convit.training.plan import MAY_CHANGE
from convit.training.run_folder import first_difference

KEEP = 2
"""How many states are kept: should the newest be damaged, the one before it is there."""
DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, SafetensorError, OverflowError)
"""What reading a state raises that is not whole, or that another program wrote."""
TENSORS, META = "tensors.safetensors", "state.json"


@dataclass(slots=True)
class Progress:
    """How far a run is. Besides this, its state is only weights and optimiser moments: everything random is drawn from
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

    def end_step(self, loss: float, seconds: float) -> None:
        """Counts a step with its mean loss; ``seconds`` of the epoch have gone by."""
        self.step, self.seconds, self.loss_sum = self.step + 1, seconds, self.loss_sum + loss

    def end_epoch(self, record: dict[str, Any]) -> None:
        """Counts an epoch with its record."""
        self.history.append(record)
        self.epoch, self.step, self.seconds, self.loss_sum = self.epoch + 1, 0, 0.0, 0.0


@dataclass(slots=True)
class State:
    """All of a run that changes, and the plan that it belongs to."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    ema: nn.Module | None = None
    """The moving average of the weights, if there is one."""
    scaler: torch.amp.GradScaler | None = None
    """The loss scale of fp16; one that is not enabled has no state."""
    progress: Progress = field(default_factory=Progress)
    plan: str = ""
    """Fingerprint of the plan; states of other plans are skipped."""
    options: dict[str, Any] = field(default_factory=dict)
    """Those of the plan, as JSON values: they tell what has been changed."""
    known: set[Path] = field(default_factory=set)
    """States of it that this process wrote, or read whole: they are large, and not read again."""


def save_state(folder: Path, state: State) -> Path:
    """Writes a state into ``folder``; once there are ``KEEP`` whole ones of the run, its others are removed.

    States of other runs are kept, except one of the same step, which is replaced. A complete state of the same step and
    run is not written again: it is the same. A state does not depend on the number of processes.

    Raises:
        OSError: the disk is full or read-only; the states that were there still are.
    """
    final = folder / f"epoch-{state.progress.epoch:04d}-step-{state.progress.step:06d}"
    if _is_whole(final, state.plan):
        return final
    for left in folder.glob(".epoch-*.tmp"):  # by a kill; a run that is resumed may never save at that step again
        shutil.rmtree(left, ignore_errors=True)
    with replacing_folder(final) as new:
        for name, content in _files(state):
            (new / name).write_bytes(content)
    state.known.add(final)
    _remove_old(folder, final, state)
    return final


def _remove_old(folder: Path, newest: Path, state: State) -> None:
    """A damaged state counts for nothing, so it goes when there are enough without it."""
    kept = [newest, *islice((path for path in own_states(folder, state) if path != newest), KEEP - 1)]
    if len(kept) == KEEP:
        for old in states(folder):
            if old not in kept and not _is_foreign(old, state.plan):
                shutil.rmtree(old)


def _files(state: State) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files of a state."""
    optimizer = state.optimizer.state_dict()
    content = safetensors.torch.save(_tensors(state, optimizer["state"]))
    yield TENSORS, content
    meta = {
        "progress": asdict(state.progress),
        "param_groups": optimizer["param_groups"],
        "scaler": state.scaler.state_dict() if state.scaler is not None else {},
        "plan": state.plan,
        "options": state.options,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    body = json.dumps(meta)
    check = hashlib.sha256(body.encode()).hexdigest()
    yield META, f"{check}\n{body}\n".encode()


def _tensors(state: State, moments: dict[int, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """All tensors of a state, on the CPU."""
    tensors = {f"model.{key}": value for key, value in state.model.state_dict().items()}
    if state.ema is not None:
        tensors |= {f"ema.{key}": value for key, value in state.ema.state_dict().items()}
    for index, entries in moments.items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in entries.items()}
    return {key: value.detach().cpu().contiguous() for key, value in tensors.items()}


def states(folder: Path) -> list[Path]:
    """The states in ``folder``, newest first."""
    found = folder.glob("epoch-*-step-*") if folder.is_dir() else ()
    return sorted(found, key=lambda path: [int(number) for number in re.findall(r"\d+", path.name)], reverse=True)


def own_states(folder: Path, state: State) -> Iterator[Path]:
    """Those of them that are whole and of the run. Each is read as it is asked for, unless it is known."""
    for path in states(folder):
        if path not in state.known and _is_whole(path, state.plan):
            state.known.add(path)
        if path in state.known:
            yield path


def load_state(folder: Path, state: State) -> list[str]:
    """Puts the newest whole state of ``folder`` that is of the run into ``state``.

    Returns:
        One line for each state that was passed over.

    Raises:
        InputError: there is none; where there are states of another plan, the option in which it differs.
    """
    passed: list[str] = []
    others: list[dict[str, Any]] = []
    for path in states(folder):
        try:
            meta, tensors = _read(path)
        except DAMAGE as error:
            passed.append(f"{path}: damaged ({one_line(error, 120)}); taking the state before it")
            continue
        if meta.get("plan") != state.plan:
            others.append(meta)
            passed.append(f"{path}: the state of another run; taking the one before it")
            continue
        try:
            _restore(meta, tensors, state)
        except DAMAGE as error:
            passed.append(f"{path}: damaged ({one_line(error, 120)}); taking the state before it")
            continue
        state.known.add(path)
        return passed
    raise _none_left(folder, len(passed), others, state)


def _none_left(folder: Path, count: int, others: list[dict[str, Any]], state: State) -> InputError:
    """What to raise for ``count`` states, none of which is whole and of the run; some are of other plans."""
    before = others[0].get("options", {}) if others else state.options
    change = first_difference(_counting(before), _counting(state.options))
    if change is not None:
        name, was, got = change
        return InputError(
            f"{name}: the run in {folder.parent} has {was}, got {got}; expected the run's own to resume it"
        )
    whole = f"whole and of this run ({len(others)} of another one)" if others else "whole"
    return InputError(f"{folder}: {count} states, none of them {whole}; expected one to resume from")


def _counting(options: dict[str, Any]) -> dict[str, Any]:
    """The options that make a run what it is."""
    return {name: value for name, value in options.items() if name not in MAY_CHANGE}


def _read_meta(path: Path) -> dict[str, Any]:
    check, body = read(path / META, 4 * MOST_JSON).decode().rstrip("\n").split("\n", 1)
    if hashlib.sha256(body.encode()).hexdigest() != check:
        raise ValueError(f"checksum of {META}")
    return dict(parse_json(body, finite=False))


def _read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    meta = _read_meta(path)
    if _digest(path / TENSORS) != meta["sha256"]:
        raise ValueError(f"checksum of {TENSORS}")
    return meta, safetensors.torch.load(read(path / TENSORS))


def _digest(path: Path) -> str:
    """The checksum of a file, of which little is in memory."""
    with opened(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _is_whole(path: Path, plan: str) -> bool:
    try:
        meta = _read_meta(path)
        return meta.get("plan") == plan and bool(_digest(path / TENSORS) == meta["sha256"])
    except DAMAGE:
        return False


def _is_foreign(path: Path, plan: str) -> bool:
    """Whether a state says that it is of another run, whole or not."""
    try:
        return _read_meta(path).get("plan") != plan
    except DAMAGE:
        return False


def _restore(meta: dict[str, Any], tensors: dict[str, torch.Tensor], state: State) -> None:
    """Raises one of DAMAGE for a state that does not fit; the model may then have some of it."""
    progress = _progress(meta["progress"])
    own = state.optimizer.state_dict()["param_groups"]
    for prefix, module in (("model.", state.model), ("ema.", state.ema)):
        if module is not None:
            module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            moments.setdefault(int(index), {})[name] = value
    _check_moments(moments, state.optimizer)
    groups = [_group(one, other) for one, other in zip(own, meta["param_groups"], strict=True)]
    state.optimizer.load_state_dict({"state": moments, "param_groups": groups})
    if state.scaler is not None and meta.get("scaler"):
        state.scaler.load_state_dict(meta["scaler"])
    state.progress = progress


def _progress(values: dict[str, Any]) -> Progress:
    progress = Progress(**values)
    counts, numbers = (progress.epoch, progress.step), (progress.seconds, progress.loss_sum)
    whole = all(type(count) is int and 0 <= count < 2**62 for count in counts)
    if not whole or not all(type(number) in (int, float) and abs(number) < 1e300 for number in numbers):
        raise ValueError(f"its progress is {brief((*counts, *numbers))}")
    if not isinstance(progress.history, list):
        raise ValueError(f"its history is {brief(progress.history)}")
    return progress


def _group(own: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """A group of parameters of the optimiser with the learning rate of the state; all else must be the plan's."""
    lr = found["lr"]
    if type(lr) not in (int, float) or not 0 <= lr < 1e12:
        raise ValueError(f"lr is {brief(lr)}")
    group = own | {"lr": lr}
    if json.loads(json.dumps(group)) != found:
        raise ValueError("groups of parameters of another optimiser")
    return group


def _check_moments(moments: dict[int, dict[str, torch.Tensor]], optimizer: torch.optim.Optimizer) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, entries in moments.items():
        expected = kept_of(optimizer, parameters[index])
        if entries.keys() != expected:
            raise ValueError(f"of parameter {index} it has {sorted(entries)}, expected {sorted(expected)}")
        for name, value in entries.items():
            if value.shape != (() if name == "step" else parameters[index].shape):
                raise ValueError(f"{name} of parameter {index} has the shape {tuple(value.shape)}")
