"""Damage to every byte range of the newest state: the one before it is taken, or none, and never a damaged one."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from convit.errors import InputError
from convit.training.state import Progress, State, load_state, save_state, states
from tests.faults.harness import COUNTS, FULL, Ended, Whole

RANGES = 64
FILES = ("tensors.safetensors", "state.json")


def state(seed: int, **progress: Any) -> State:
    """A small model with a moving average, after one step of AdamW; its state is of about 2 KB."""
    torch.manual_seed(seed)
    model, average = nn.Linear(3, 2), nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return State(model, optimizer, average, progress=Progress(**progress))


def content(of: State) -> dict[str, bytes]:
    """All its numbers."""
    assert of.ema is not None
    groups = {"model": of.model.state_dict(), "ema": of.ema.state_dict(), **of.optimizer.state_dict()["state"]}
    return {
        f"{group}.{key}": value.numpy().tobytes() for group, named in groups.items() for key, value in named.items()
    }


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The states of steps 1 and 2."""
    for step in (1, 2):
        save_state(tmp_path, state(step, epoch=3, step=step, history=[{"epoch": 1, "val_top1": 50.0}]))
    return tmp_path


def loaded(folder: Path) -> tuple[int, dict[str, bytes], list[str]]:
    into = state(9)
    damaged = load_state(folder, into)
    return into.progress.step, content(into), damaged


def assert_never_wrong(folder: Path, data: bytes, whole: bytes, name: str) -> None:
    """The state before, and a line that names the damaged one; or the whole content of the newest."""
    (folder / "epoch-0003-step-000002" / name).write_bytes(data)
    step, numbers, damaged = loaded(folder)
    assert numbers == content(state(step))
    if step == 2:
        assert not damaged
        assert data.rstrip(b"\n") == whole.rstrip(b"\n")  # no more than the last line's end may be missing
    else:
        assert len(damaged) == 1
        assert "epoch-0003-step-000002: damaged (" in damaged[0]
        assert "taking the state before it" in damaged[0]
        assert "\n" not in damaged[0]
    COUNTS["damages to states"] += 1


def flips(data: bytes) -> Iterator[bytes]:
    """One bit of every byte, another of the eight from byte to byte."""
    for i, byte in enumerate(data):
        yield data[:i] + bytes([byte ^ (1 << i % 8)]) + data[i + 1 :]


def cuts(data: bytes) -> Iterator[bytes]:
    """Every shorter length; and longer ones."""
    yield from (data[:length] for length in range(len(data)))
    yield from (data + more for more in (b"\0", b"\n{}", data))


def blanks(data: bytes) -> Iterator[bytes]:
    """Every 64th part zeroed, and everything from there on, as file systems leave it after a power cut."""
    for i in range(RANGES):
        begin, end = (len(data) * k // RANGES for k in (i, i + 1))
        yield data[:begin] + bytes(end - begin) + data[end:]
        yield data[:begin] + bytes(len(data) - begin)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damages", [flips, cuts, blanks])
def test_bytes(damages: Callable[[bytes], Iterator[bytes]], name: str, saved: Path) -> None:
    whole = (saved / "epoch-0003-step-000002" / name).read_bytes()
    for i, data in enumerate(damages(whole)):
        if data != whole and (FULL or i % 16 == 0):
            assert_never_wrong(saved, data, whole, name)


@pytest.mark.parametrize("name", FILES)
def test_file_of_another_state(name: str, saved: Path) -> None:
    """Each is whole, but they do not belong together."""
    new, old = (saved / f"epoch-0003-step-00000{step}" / name for step in (2, 1))
    assert_never_wrong(saved, old.read_bytes(), new.read_bytes(), name)


@pytest.mark.parametrize("gone", [*[(name,) for name in FILES], FILES])
def test_missing_files(gone: tuple[str, ...], saved: Path) -> None:
    for name in gone:
        (saved / "epoch-0003-step-000002" / name).unlink()
    step, numbers, damaged = loaded(saved)
    assert (step, numbers, len(damaged)) == (1, content(state(1)), 1)
    COUNTS["damages to states"] += 1


def test_nothing_whole_is_refused(saved: Path) -> None:
    for path in states(saved):
        (path / "state.json").write_bytes(b"")
    before = content(state(9))
    into = state(9)
    with pytest.raises(InputError, match="2 states, none of them whole; expected one to resume from"):
        load_state(saved, into)
    with pytest.raises(InputError, match="0 states"):
        load_state(saved / "missing", into)
    assert content(into) == before
    COUNTS["damages to states"] += 2


def test_half_a_state_is_removed(saved: Path) -> None:
    """What a kill left half-written, at a step at which the resumed run, saved by the clock, need not save again."""
    half = saved / ".epoch-0002-step-000009.tmp"
    half.mkdir()
    (half / "tensors.safetensors").write_bytes(b"half")
    save_state(saved, state(3, epoch=3, step=3))
    assert sorted(path.name for path in saved.iterdir()) == ["epoch-0003-step-000002", "epoch-0003-step-000003"]


# -- through the command line -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def broken_off(short: Whole, place: Path) -> Iterator[Path]:
    """A run that was killed with two states: as it began to write the third."""
    run, file = place / "broken-off", place / "points"
    got = short.forks(*short.arguments(run), folder=str(run), points=str(file), pictures=False)
    third = file.read_text().splitlines().index("mkdir checkpoints/.epoch-0001-step-000000.tmp")
    shutil.rmtree(run)
    got = short.forks(*short.arguments(run), folder=str(run), fault="kill", first=third, pictures=False)
    assert got.status == 137
    assert len(states(run / "checkpoints")) == 2
    yield run
    shutil.rmtree(run)


def copied(run: Path, out: Path, damage: Callable[[bytes], bytes], name: str, count: int = 1) -> Path:
    """A copy of the run whose newest states are damaged."""
    shutil.copytree(run, out)
    for path in states(out / "checkpoints")[:count]:
        (path / name).write_bytes(damage((path / name).read_bytes()))
    return out


def zeroed(i: int) -> Callable[[bytes], bytes]:
    """Zeroes one 64th part."""
    return lambda data: (
        data[: len(data) * i // RANGES].ljust(len(data) * (i + 1) // RANGES, b"\0")
        + (data[len(data) * (i + 1) // RANGES :])
    )


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("part", range(0, RANGES, 8) if FULL else [40])
def test_run_falls_back_to_the_same_bits(part: int, name: str, broken_off: Path, short: Whole, out: Path) -> None:
    copied(broken_off, out, zeroed(part), name)
    got = short.goes_on(out)
    assert "step-000002: damaged (" in got.said
    assert "resuming after epoch 0, step 1" in got.said
    COUNTS["damaged runs resumed"] += 1


def refused(got: Ended) -> str:
    """The one line of a run that is not continued."""
    assert got.status == 2, got.said
    assert "Traceback" not in got.said
    return got.said.splitlines()[-1]


def test_run_without_a_whole_state_is_refused(broken_off: Path, short: Whole, out: Path) -> None:
    copied(broken_off, out, lambda data: data[:-1], "tensors.safetensors", count=2)
    assert "2 states, none of them whole" in refused(short.forks(*short.arguments(out)))
    COUNTS["damaged runs refused"] += 1


@pytest.mark.parametrize("name", ["config.yaml", "split.json", "plan.json", "images.json"])
@pytest.mark.parametrize("damage", [lambda _: b"", lambda data: data[: len(data) // 2], lambda data: bytes(len(data))])
def test_damage_to_what_the_run_is(
    name: str, damage: Callable[[bytes], bytes], broken_off: Path, short: Whole, out: Path
) -> None:
    """Refused, in one line."""
    shutil.copytree(broken_off, out)
    (out / name).write_bytes(damage((out / name).read_bytes()))
    line = refused(short.forks(*short.arguments(out)))
    assert str(out) in line
    COUNTS["damaged runs refused"] += 1


def test_metrics_are_written_again(broken_off: Path, short: Whole, out: Path) -> None:
    """They are in the state too."""
    shutil.copytree(short.run, out)
    (out / "metrics.jsonl").write_bytes(b"\0" * 40)
    got = short.goes_on(out)
    assert "resuming after epoch 1" in got.said
    assert json.loads((short.run / "metrics.jsonl").read_text())["epoch"] == 1


def flipped(data: bytes) -> bytes:
    """One bit of the last weight."""
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda _: b"", lambda data: bytes(len(data)), flipped])
def test_damage_to_the_best_model(damage: Callable[[bytes], bytes], short: Whole, out: Path) -> None:
    """Of a complete run, where nothing writes it again."""
    shutil.copytree(short.run, out)
    (out / "model.safetensors").write_bytes(damage((out / "model.safetensors").read_bytes()))
    says = "model.safetensors: damaged" if damage is flipped else "model.safetensors: not a whole"
    for command in (short.arguments(out), ("evaluate", out, short.data), ("predict", out, short.data)):
        assert says in refused(short.forks(*command))
    COUNTS["damaged runs refused"] += 1
