"""The state on disk: to the bit, whole or not at all, and never trusted unread."""

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any, get_args

import pytest
import safetensors.torch
import torch
from torch import nn

from convit.choices import OptimizerName
from convit.errors import InputError
from convit.training.optimizers import make_optimizer
from convit.training.state import Progress, State, load_state, save_state, states


def trained(seed: int = 0, steps: int = 3, opt: OptimizerName = "adamw") -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 8))
    groups = [{"params": [p], "weight_decay": 0.1 * i} for i, p in enumerate(model.parameters())]
    optimizer = make_optimizer(groups, opt, 1e-3 * (seed + 1))
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(7, 8)).square().sum().backward()
        optimizer.step()
    return model, optimizer


def state(seed: int = 0, plan: str = "", options: dict[str, Any] | None = None, **progress: Any) -> State:
    return State(*trained(seed), plan=plan, options=options or {}, progress=Progress(**progress))


def saved(folder: Path, epochs: int = 2) -> None:
    for epoch in range(1, epochs + 1):
        save_state(folder, state(epoch, epoch=epoch, loss_sum=epoch / 3, history=[{"epoch": epoch}]))


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def holds(epoch: int, folder: Path) -> list[str]:
    """Whether loading gives the state of that epoch, to the bit; the lines about damaged states."""
    model, optimizer = trained(seed=99, steps=0)
    loaded = State(model, optimizer)
    damaged = load_state(folder, loaded)
    expected_model, expected_optimizer = trained(epoch)
    assert loaded.progress == Progress(epoch=epoch, loss_sum=epoch / 3, history=[{"epoch": epoch}])
    assert same(model.state_dict(), expected_model.state_dict())
    assert same(optimizer.state_dict(), expected_optimizer.state_dict())
    return damaged


def flip_bit(path: Path, position: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(position * (len(data) - 1))] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("opt", get_args(OptimizerName))
def test_every_optimiser_goes_on_alike(opt: OptimizerName, tmp_path: Path) -> None:
    model, optimizer = trained(opt=opt)
    save_state(tmp_path, State(model, optimizer))
    other, again = trained(seed=99, steps=0, opt=opt)
    load_state(tmp_path, State(other, again))
    assert same(again.state_dict()["state"], optimizer.state_dict()["state"])
    x = torch.randn(7, 8)
    for net, steps in ((model, optimizer), (other, again)):
        steps.zero_grad()
        net(x).square().sum().backward()
        steps.step()
    assert same(model.state_dict(), other.state_dict())


@pytest.mark.parametrize("opt", get_args(OptimizerName))
@pytest.mark.parametrize("renamed", ["exp_avg", "momentum_buffer", "exp_avg_sq"])
def test_moments_that_the_optimiser_does_not_keep(opt: OptimizerName, renamed: str, tmp_path: Path) -> None:
    """Those of one parameter are called otherwise, by somebody who knows of the checksums."""
    folder = save_state(tmp_path, State(*trained(opt=opt)))
    tensors = safetensors.torch.load_file(folder / "tensors.safetensors")
    found = [key for key in tensors if key.startswith("optimizer.") and key.endswith("." + renamed)]
    if not found:
        assert (opt, renamed) == ("adamw", "momentum_buffer")
        return
    tensors[found[0] + "s"] = tensors.pop(found[0])
    content = safetensors.torch.save(tensors)
    (folder / "tensors.safetensors").write_bytes(content)
    file = folder / "state.json"
    meta = json.loads(file.read_text().split("\n")[1]) | {"sha256": hashlib.sha256(content).hexdigest()}
    body = json.dumps(meta).encode()
    file.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body + b"\n")
    with pytest.raises(InputError, match="none of them whole"):
        load_state(tmp_path, State(*trained(seed=99, steps=0, opt=opt)))


def test_progress_keeps_every_digit(tmp_path: Path) -> None:
    before = state(epoch=3, step=7, seconds=0.1, loss_sum=sum([0.1] * 7), history=[{"x": 1e-17}])
    save_state(tmp_path, before)
    after = state()
    load_state(tmp_path, after)
    assert after.progress == before.progress


def test_two_are_kept_newest_first(tmp_path: Path) -> None:
    saved(tmp_path, epochs=4)
    save_state(tmp_path, state(epoch=4, step=11))
    assert [path.name for path in states(tmp_path)] == ["epoch-0004-step-000011", "epoch-0004-step-000000"]
    assert len(list(tmp_path.iterdir())) == 2
    save_state(tmp_path, state(epoch=4, step=11))  # once more at the same step
    assert len(list(tmp_path.iterdir())) == 2


def full_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("at", ["fsync", "rename", "open"])
def test_failed_write_leaves_the_earlier_states(at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(*((os, "fsync") if at == "fsync" else (Path, at)), full_disk)
        with pytest.raises(OSError, match="No space left"):
            save_state(tmp_path, state(3, epoch=3))
    assert len(states(tmp_path)) == 2
    assert holds(2, tmp_path) == []
    assert not [path for path in tmp_path.rglob("*") if ".tmp" in path.name], "half a state fills the full disk"
    save_state(tmp_path, state(3, epoch=3, loss_sum=1.0, history=[{"epoch": 3}]))  # there is room again
    assert holds(3, tmp_path) == []


def test_half_written_state_is_not_looked_at(tmp_path: Path) -> None:
    """What a kill in the middle of a write leaves behind."""
    saved(tmp_path)
    (tmp_path / ".epoch-0003-step-000000.tmp").mkdir()
    assert holds(2, tmp_path) == []


def test_a_whole_state_of_the_same_step_is_never_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, epochs=1)
    before = (states(tmp_path)[0] / "state.json").read_bytes()
    with monkeypatch.context() as patch:  # neither removed nor written again
        patch.setattr(os, "fsync", full_disk)
        save_state(tmp_path, state(1, epoch=1, seconds=3.0))
    assert (states(tmp_path)[0] / "state.json").read_bytes() == before
    flip_bit(states(tmp_path)[0] / "tensors.safetensors", 0.5)
    save_state(tmp_path, state(1, epoch=1, loss_sum=1 / 3, history=[{"epoch": 1}]))
    assert holds(1, tmp_path) == []


def test_the_new_state_stays_whatever_is_named_after_it(tmp_path: Path) -> None:
    """A run that passed over damaged states writes older names than theirs."""
    saved(tmp_path, epochs=3)
    (tmp_path / "epoch-0002-step-000001").mkdir()  # so there are three
    save_state(tmp_path, state(1, epoch=1))
    assert (tmp_path / "epoch-0001-step-000000/state.json").exists()
    assert len(states(tmp_path)) == 2


def of_plan(plan: str, epoch: int = 0) -> State:
    return state(1, plan, epoch=epoch)


def test_two_whole_ones_of_the_run_are_kept_beside_those_of_another(tmp_path: Path) -> None:
    save_state(tmp_path, of_plan("other", 10))
    save_state(tmp_path, of_plan("other", 9))
    for epoch in range(1, 5):
        save_state(tmp_path, of_plan("own", epoch))
    assert [int(path.name[6:10]) for path in states(tmp_path)] == [10, 9, 4, 3]


def test_damaged_ones_do_not_count(tmp_path: Path) -> None:
    """They go once there are two whole ones, and not before: then there is nothing else."""
    for epoch in (8, 9):
        save_state(tmp_path, of_plan("own", epoch))
    for path in states(tmp_path):
        flip_bit(path / "tensors.safetensors", 0.5)
    own = of_plan("own", 1)
    save_state(tmp_path, own)
    assert [int(path.name[6:10]) for path in states(tmp_path)] == [9, 8, 1]
    own.progress.epoch = 2
    save_state(tmp_path, own)
    assert [int(path.name[6:10]) for path in states(tmp_path)] == [2, 1]


def test_own_states_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are large: neither what this process wrote nor what it loaded is read at the next save."""
    save_state(tmp_path, of_plan("other", 10))
    save_state(tmp_path, of_plan("own", 1))
    own = of_plan("own")
    load_state(tmp_path, own)
    real, read = Path.open, list[Path]()

    def opened(path: Path, mode: str = "r", *more: Any, **also: Any) -> Any:
        if path.name == "tensors.safetensors" and mode == "rb":
            read.append(path)
        return real(path, mode, *more, **also)

    monkeypatch.setattr(Path, "open", opened)
    for epoch in (2, 3, 4):
        own.progress.epoch = epoch
        save_state(tmp_path, own)
    assert read == []
    save_state(tmp_path, of_plan("own", 5))
    assert len(read) == 1, "another process reads one to know that it is whole"
    assert [int(path.name[6:10]) for path in states(tmp_path)] == [10, 5, 4]


def test_states_of_another_plan_name_what_differs(tmp_path: Path) -> None:
    """Where none is left; where things lie, and on how many processes, makes no other run."""
    checkpoints = tmp_path / "run/checkpoints"
    save_state(checkpoints, state(1, "before", {"out": "a", "workers": 0, "lr": 0.002, "epochs": 3}))
    with pytest.raises(
        InputError, match=f"^lr: the run in {tmp_path / 'run'} has 0.002, got 0.1; expected the run's own"
    ):
        load_state(checkpoints, state(1, "now", {"out": "b", "workers": 2, "lr": 0.1, "epochs": 4}))
    with pytest.raises(InputError, match=r"1 states, none of them whole and of this run \(1 of another one\)"):
        load_state(checkpoints, state(1, "now", {"out": "b", "workers": 2, "lr": 0.002, "epochs": 3}))
    save_state(checkpoints, state(2, "now", epoch=0, step=1))
    save_state(checkpoints, state(1, "before", epoch=4))
    loaded = state(1, "now")
    assert (
        "epoch-0004-step-000000: the state of another run; taking the one before it"
        in load_state(checkpoints, loaded)[0]
    )
    assert loaded.progress.step == 1
