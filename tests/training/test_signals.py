"""Ctrl-C and a scheduler's SIGTERM, on a real process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from convit.entry import train
from convit.errors import InputError
from convit.training import workers as workers_module
from convit.training.workers import LEFT_TO_THE_LOOP, WorkerDied, batches, end_workers, make_loader
from tests.training.small import exact, options

EPOCHS = 25


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """As in the process that is stopped: another number of threads may sum in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


COUNTS = {"dark": 5, "light": 5}


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(**vars(options(data, out, epochs=EPOCHS)))
    return out


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(("signum", "workers"), [(signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGTERM, 1)])
def test_stopped_process(signum: signal.Signals, workers: int, data: Path, whole: Path, tmp_path: Path) -> None:
    """With workers the whole process group gets the signal, as from a terminal or ``timeout``."""
    out = tmp_path / "run"
    command = f"-m convit train {data} --out {out} --model convit_micro_patch4_32 --image-size 8 --patch-size 4"
    command += f" --workers {workers} --epochs {EPOCHS} --batch-size 4 --device cpu"
    process = subprocess.Popen(
        [sys.executable, *command.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        while not (out / "metrics.jsonl").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        if workers:
            os.killpg(process.pid, signum)
        else:
            process.send_signal(signum)
        said, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + signum
    assert f"stopped by {signum.name}; the state is saved in {out}" in said
    assert "Traceback" not in errors
    assert len((out / "metrics.jsonl").read_text().splitlines()) < EPOCHS
    train(resume=out)
    assert exact(out) == exact(whole)  # what the command measures of the attention, too


class Masks(torch.utils.data.Dataset[list[int]]):
    """Of the process that is asked: the signals that it ignores or holds back."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> list[int]:
        held = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        return [int(number in held or signal.getsignal(number) is signal.SIG_IGN) for number in LEFT_TO_THE_LOOP]


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="no signals of POSIX here")
def test_loader_processes_hold_signals_back_from_their_first_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also before they come to ignore them: PyTorch's own handler would end them in between."""
    monkeypatch.setattr(workers_module, "_begin_worker", None)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    loader = make_loader(Masks(), 1)
    try:
        assert [[int(held) for held in item] for item in batches(loader)] == [[1, 1], [1, 1]]
    finally:
        end_workers(loader)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_loader_process_that_dies_in_the_last_evaluation(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluation(*args: object, **kwargs: object) -> None:
        raise WorkerDied("a process that loads images died")

    monkeypatch.setattr("convit.training.report.logits_of", evaluation)
    with pytest.raises(InputError, match=r"died; all is trained, and saved: 'convit train --resume .*' evaluates it"):
        train(**vars(options(data, tmp_path / "run", epochs=1)))
    monkeypatch.undo()
    train(resume=tmp_path / "run")
    assert (tmp_path / "run/evaluation.json").exists()
