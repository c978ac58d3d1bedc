"""A disk without room: one line, the last good state stays, training goes on, and with room nothing is lost."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from convit.classifier import Classifier
from convit.errors import InputError
from convit.events import Event, Said
from convit.training import Stopped, saving
from convit.training.run import train
from convit.training.run_folder import RunFolder
from convit.training.state import Progress, State, save_state, states
from tests.training.small import StopAt, exact, metrics, options, resume

EPOCHS = 3
COUNTS = {"dark": 6, "light": 6}


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that always had room."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(options(data, out, epochs=EPOCHS))
    return out


class Lines:
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, Said):
            self.said.append(event.text)

    @property
    def faults(self) -> list[str]:
        return [line for line in self.said if "could not save" in line]


def failing(real: Callable[..., Any], calls: set[int], fault: int = errno.ENOSPC) -> Callable[..., Any]:
    """``real``, but the n-th call finds no room, for n in ``calls``."""
    count = iter(range(1, 1000))

    def attempt(*args: Any, **kwargs: Any) -> Any:
        if next(count) in calls:
            raise OSError(fault, os.strerror(fault), "the disk")
        return real(*args, **kwargs)

    return attempt


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("calls", [{1}, {2}, {1, 2}])
def test_state_without_room(
    fault: int, calls: set[int], data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "save_state", failing(saving.save_state, calls, fault))
    lines = Lines()
    train(options(data, tmp_path / "run", epochs=EPOCHS), lines)
    assert exact(tmp_path / "run") == exact(whole)
    assert len(lines.faults) == len(calls)
    assert f"could not save ({os.strerror(fault)}): training goes on, and this is tried again; " in lines.faults[0]
    newest = "no state is saved yet" if 1 in calls else f"the newest state in {tmp_path / 'run'} is epoch-0001-step-0"
    assert newest in lines.faults[0]
    assert lines.said.count("saved again: there is room") == 1


@pytest.mark.parametrize(("calls", "saved"), [({1}, [2, 3]), ({1, 2}, [3])])
def test_best_model_without_room(
    calls: set[int], saved: list[int], data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits in memory as it was; until it is written no state is, which would believe it on the disk."""
    monkeypatch.setattr(Classifier, "write", failing(Classifier.write, calls))
    real, seen = saving.save_state, []
    monkeypatch.setattr(saving, "save_state", lambda *args: (seen.append(args[1].progress.epoch), real(*args))[1])
    lines = Lines()
    train(options(data, tmp_path / "run", epochs=EPOCHS), lines)
    assert exact(tmp_path / "run")[1:] == exact(whole)[1:]
    assert (seen, len(lines.faults)) == (saved, len(calls))


def test_no_room_to_the_end(data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = Lines()
    with monkeypatch.context() as patch:
        patch.setattr(saving, "save_state", failing(saving.save_state, set(range(2, 100))))
        with pytest.raises(
            InputError, match=r"the disk: No space left on device; expected a place with room"
        ) as caught:
            train(options(data, tmp_path / "run", epochs=EPOCHS), lines)
    advice = f"is epoch-0001-step-000000: make room, and continue with 'convit train --resume {tmp_path / 'run'}'"
    assert advice in str(caught.value)
    assert len(lines.faults) == 3  # after each epoch but the first, and at the end
    assert len(metrics(tmp_path / "run")) == 1
    train(resume(tmp_path / "run"))
    assert exact(tmp_path / "run") == exact(whole)


def test_no_room_at_a_stop(data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(saving, "save_state", failing(saving.save_state, {2}))
        with pytest.raises(InputError, match="stopped, but not saved: the disk: No space left"):
            train(options(data, tmp_path / "run", epochs=EPOCHS), StopAt("epoch 2/3", 1))
    train(resume(tmp_path / "run"))
    assert exact(tmp_path / "run") == exact(whole)


def test_stop_after_room_came_back(data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "write", failing(Classifier.write, {1}))
        with pytest.raises(Stopped):
            train(options(data, tmp_path / "run", epochs=EPOCHS), StopAt("epoch 2/3", 2))
    assert (tmp_path / "run/model.safetensors").exists()  # the one of epoch 1 that waited
    train(resume(tmp_path / "run"))
    assert exact(tmp_path / "run") == exact(whole)


def test_log_without_room(data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def no_room(path: Path, mode: str = "r", *more: Any, **also: Any) -> Any:
        if path.name == "log.txt":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, mode, *more, **also)

    monkeypatch.setattr(Path, "open", no_room)
    train(options(data, tmp_path / "run", epochs=EPOCHS))
    assert exact(tmp_path / "run") == exact(whole)


def test_newest_is_whole_and_of_the_run(tmp_path: Path) -> None:
    """What a person is told to go on from."""

    def state(plan: str, epoch: int) -> State:
        model = nn.Linear(2, 2)
        return State(model, torch.optim.AdamW(model.parameters()), progress=Progress(epoch=epoch), plan=plan)

    folder = RunFolder(tmp_path)
    saver = saving.Saver(folder, state("own", 0), None, print)  # type: ignore[arg-type]
    save_state(folder.checkpoints, state("other", 9))
    assert saver.newest() == "no state is saved yet"
    for epoch in (1, 2):
        save_state(folder.checkpoints, state("own", epoch))
    (folder.checkpoints / "epoch-0002-step-000000/tensors.safetensors").write_bytes(b"damaged")
    assert saver.newest().endswith("is epoch-0001-step-000000")


LIMITED = """
import resource
import sys
from pathlib import Path
from tests.training.small import options
from convit.events import PassBegan, Said
from convit.training.run import train
def limit(event):
    if isinstance(event, PassBegan) and event.what.startswith("epoch 2"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    if isinstance(event, PassBegan) and event.what.startswith("epoch 3") and sys.argv[3] == "again":
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    if isinstance(event, Said):
        print(event.text)
train(options(sys.argv[1], Path(sys.argv[2]), epochs=3), limit)
"""


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
@pytest.mark.parametrize("room", ["again", "never"])
def test_limit_of_the_system(room: str, data: Path, whole: Path, tmp_path: Path) -> None:
    """Writes that the system itself cuts off in the middle of a file, in the second epoch."""
    out = tmp_path / "run"
    got = subprocess.run(
        [sys.executable, "-c", LIMITED, str(data), str(out), room], capture_output=True, text=True,
        timeout=600, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert "could not save (File too large)" in got.stdout
    assert "is epoch-0001-step-000000" in got.stdout
    assert not list(out.rglob("*.tmp"))
    if room == "again":
        assert got.returncode == 0, got.stderr
    else:
        assert "File too large; expected a place with room" in got.stderr.splitlines()[-1]
        assert [path.name for path in states(out / "checkpoints")] == ["epoch-0001-step-000000"]
        train(resume(out))
    assert exact(out)[2] == exact(whole)[2]
