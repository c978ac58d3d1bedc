"""Two processes over gloo give what one gives, stop together, and end together when one of them fails."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from convit.data import EpochSampler
from convit.errors import InputError
from convit.training import learner, watch
from tests.faults.harness import COUNTS
from tests.training.processes import Launched, command
from tests.training.small import metrics, newest_state, photos

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="forked processes, signals")]

SMALL = "--model convit_micro_patch4_32 --image-size 8 --patch-size 4 --workers 0 --device cpu --epochs 2"
ALL = f"{SMALL} --batch-size 8 --mixup 0.8 --cutmix 1 --mix-prob 0.9 --drop-path 0.3 --ema-decay 0.9 --lr 1e-3"
ALL += " --class-weights balanced --random-erasing 0.5 --warmup-epochs 0.5 --opt adamw"
ROUNDING = 2e-5
"""Largest difference of two weights after six steps at a learning rate of 1e-3. Measured: up to 6e-6, as much between
one process with and without ``--accumulate``. With the masks of other rows it was 5e-4."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """25 images to learn from, three steps of 8; 5 to validate and 7 to test, which two processes share unevenly."""
    root = tmp_path_factory.mktemp("data") / "animals"
    for part, counts in {"train": (12, 8, 5), "val": (2, 2, 1), "test": (3, 2, 2)}.items():
        photos(root / part, dict(zip(("ape", "bee", "cow"), counts, strict=True)))
    return root


def trained(data: Path, out: Path, size: int = 2, options: str = ALL, work: Callable[..., Any] = command) -> Launched:
    number = len(list(out.parent.glob("log*")))
    return Launched(out.parent / f"log{number}", size, work, "train", str(data), "--out", str(out), *options.split())


def resumed(out: Path, size: int = 2, work: Callable[..., Any] = command) -> Launched:
    number = len(list(out.parent.glob("log*")))
    return Launched(out.parent / f"log{number}", size, work, "train", "--resume", str(out))


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "alone"
    assert trained(data, out, 1).wait() == [0]
    return out


def tensors(run: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(newest_state(run) / "tensors.safetensors")


def assert_same(run: Path, other: Path, without: tuple[str, ...] = ()) -> None:
    """The state, up to rounding; the counts, exactly. without: ends of names that are not compared."""
    got, expected = tensors(run), tensors(other)
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        if name.endswith(without):
            continue
        assert (got[name] - value).abs().max() <= ROUNDING, name
    assert len(metrics(run)) == len(metrics(other))
    for record, its in zip(metrics(run), metrics(other), strict=True):
        assert record.keys() == its.keys()
        assert (record["val_top1"], record["lr"]) == (its["val_top1"], its["lr"])
        for loss in ("train_loss", "val_loss"):
            assert record[loss] == pytest.approx(its[loss], abs=ROUNDING if without else 1e-6)
    counts, its_counts = (json.loads((folder / "evaluation.json").read_text()) for folder in (run, other))
    assert counts["confusion"] == its_counts["confusion"]
    assert (counts["top1"], counts.get("top5")) == (its_counts["top1"], its_counts.get("top5"))
    assert counts["images"] == 7


@pytest.mark.parametrize("more", ["", " --accumulate 2"])
def test_two_processes_are_one(more: str, data: Path, alone: Path, tmp_path: Path) -> None:
    run = trained(data, tmp_path / "run", 2, ALL + more)
    assert run.wait() == [0, 0], run.err
    assert_same(tmp_path / "run", alone)
    # Said and written once.
    assert run.err == ["", ""]
    assert run.out[1] == ""
    log = [line[20:] for line in (tmp_path / "run/log.txt").read_text().splitlines()]
    assert sum(line.startswith("epoch 1/2") for line in log) == 1
    assert {path.name for path in (tmp_path / "run").iterdir()} == {path.name for path in alone.iterdir()}


def test_two_processes_with_muon(data: Path, tmp_path: Path) -> None:
    options = ALL.replace("--opt adamw", "--opt muon")
    assert trained(data, tmp_path / "one", 1, options).wait() == [0]
    run = trained(data, tmp_path / "two", 2, options)
    assert run.wait() == [0, 0], run.err
    # Every direction of an update is made equally long, also those in which the gradient is rounding alone, so weights
    # differ by up to 1e-4; what was learned does not.
    for record, its in zip(metrics(tmp_path / "two"), metrics(tmp_path / "one"), strict=True):
        for loss in ("train_loss", "val_loss"):
            assert record[loss] == pytest.approx(its[loss], abs=1e-3)


def test_batch_norm_is_over_all_processes(data: Path, tmp_path: Path) -> None:
    options = ALL.replace("convit_micro_patch4_32", "convit_nano_patch4_32")
    assert trained(data, tmp_path / "one", 1, options).wait() == [0]
    run = trained(data, tmp_path / "two", 2, options)
    assert run.wait() == [0, 0], run.err
    assert run.err == ["", ""]
    # Every path from these biases goes through a batch norm, which takes them away: their gradients are rounding alone,
    # and AdamW makes steps of the usual size of them. The running means follow late, so evaluation sees a little of it.
    rounding = ("patch_embed.proj.bias", "attn.proj.bias", "mlp.fc2.bias", "running_mean")
    assert_same(tmp_path / "two", tmp_path / "one", without=rounding)


def test_four_processes(data: Path, alone: Path, tmp_path: Path) -> None:
    """More processes than validation images: one of them has a single image of each part."""
    assert trained(data, tmp_path / "run", 4).wait() == [0] * 4
    assert_same(tmp_path / "run", alone)


def acts(act: Callable[[], None], count: int, on: int, rank: int, *arguments: str) -> int:
    """Trains; process ``on`` calls ``act`` after so many steps."""
    real, calls = learner.Learner.step, iter(range(1, 10_000))

    def step(*arguments: Any) -> float:
        loss = real(*arguments)
        if next(calls) == count:
            act()
        return loss

    if rank == on:
        learner.Learner.step = step  # type: ignore[method-assign]
    return command(rank, *arguments)


STOPS = partial(signal.raise_signal, signal.SIGTERM)
stops_after_a_step = partial(acts, STOPS, 1, 1)
stops_at_the_end_of_an_epoch = partial(acts, STOPS, 3, 1)
# A signal is agreed upon with the next batch.
stops_in_the_validation = partial(acts, partial(signal.raise_signal, signal.SIGINT), 2, 1)


def test_stop_and_resume_with_other_processes(data: Path, alone: Path, tmp_path: Path) -> None:
    """Two processes, four, one: a stop noted by process 1 stops all, and any number goes on."""
    out = tmp_path / "run"
    first = trained(data, out, 2, ALL, stops_after_a_step)
    assert first.wait() == [143, 143], first.err
    assert first.err == ["", ""]
    assert first.out[0].count("stopped by SIGTERM") == 1
    assert first.out[1] == ""
    assert newest_state(out).name == "epoch-0000-step-000002"
    assert resumed(out, 2, stops_in_the_validation).wait() == [130, 130]
    assert newest_state(out).name == "epoch-0001-step-000002"
    assert resumed(out, 4, stops_after_a_step).wait() == [143] * 4
    assert newest_state(out).name == "epoch-0001-step-000003"
    assert resumed(out, 1).wait() == [0]
    assert_same(out, alone)


def test_stop_in_the_validation(data: Path, alone: Path, tmp_path: Path) -> None:
    """From one process to two; stopped where an evaluation is shared."""
    out = tmp_path / "run"
    shutil.copytree(alone, out)
    shutil.rmtree(out / "checkpoints/epoch-0002-step-000000")
    assert resumed(out, 2, stops_at_the_end_of_an_epoch).wait() == [143, 143]
    assert newest_state(out).name == "epoch-0001-step-000003"
    assert resumed(out).wait() == [0, 0]
    assert_same(out, alone)


is_killed = partial(acts, partial(signal.raise_signal, signal.SIGKILL), 4)


def hangs(on: int, rank: int, *arguments: str) -> int:
    """As a process whose machine is down looks over NCCL: nothing fails, nothing comes."""
    watch.GONE = 3.0
    return acts(partial(signal.raise_signal, signal.SIGSTOP), 4, on, rank, *arguments)


@pytest.mark.parametrize(("work", "gone"), [(is_killed, 1), (is_killed, 0), (hangs, 1)])
def test_killed_process(work: Callable[..., Any], gone: int, data: Path, alone: Path, tmp_path: Path) -> None:
    """One line, within a minute, and the run goes on from the state before."""
    began = time.monotonic()
    run = trained(data, tmp_path / "run", 2, ALL, partial(work, gone))
    run.processes[1 - gone].join(60)
    run.processes[gone].kill()
    assert run.wait()[1 - gone] == 1
    assert time.monotonic() - began < 60
    (line,) = run.err[1 - gone].splitlines()
    assert line.startswith("convit train: ")
    assert f"process {gone} of 2 is gone (killed" in line
    assert "the newest state in" in line
    assert f"epoch-0001-step-000000; continue with 'convit train --resume {tmp_path / 'run'}'" in line
    assert resumed(tmp_path / "run").wait() == [0, 0]
    assert_same(tmp_path / "run", alone)
    COUNTS["dead processes of several"] += 1


def _raise(error: BaseException) -> None:
    raise error


refuses = partial(acts, partial(_raise, InputError("x.png: not an image")), 2, 1)
has_a_bug = partial(acts, partial(_raise, RuntimeError("a bug")), 2, 1)


def diverges(rank: int, *arguments: str) -> int:
    real = learner.Learner._loss
    if rank == 1:
        learner.Learner._loss = lambda *a: real(*a) * float("nan")  # type: ignore[method-assign]
    return command(rank, *arguments)


def test_fault_of_one_ends_all(data: Path, tmp_path: Path) -> None:
    run = trained(data, tmp_path / "refuses", 2, ALL, refuses)
    assert run.wait() == [2, 2]
    assert run.err == ["", "convit train: x.png: not an image\n"]
    run = trained(data, tmp_path / "bug", 2, ALL, has_a_bug)
    assert run.wait() == [1, 1]
    assert run.err[0] == ""
    assert "RuntimeError: a bug" in run.err[1]


def test_loss_that_is_no_number(data: Path, tmp_path: Path) -> None:
    """It is process 1's images that are named; nothing is saved."""
    run = trained(data, tmp_path / "run", 2, ALL, diverges)
    assert run.wait() == [2, 2]
    (line,) = "".join(run.err).splitlines()
    assert "loss: got nan in epoch 1, step 1 (images " in line
    assert not (tmp_path / "run/checkpoints").exists()
    order = first_epoch(tmp_path / "run")
    assert [name in line for name in order[:8]] == [False, False, True, True, True, True, False, False]


def first_epoch(run: Path) -> list[str]:
    """The names of the images of the first epoch, in its order."""
    names = json.loads((run / "split.json").read_text())["train"]
    return [names[index] for _, index in EpochSampler(len(names), seed=0).keys(0)]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--batch-size 6", "batch-size: got 6 for 2 processes, expected"),
        ("--batch-size 8 --accumulate 5", "accumulate: got 5, expected at most the 4 images"),
        ("--model convit_nona_patch4_32", "did you mean 'convit_nano_patch4_32'?"),
        ("--weights no-such-file.pth", "weights: no such file or folder no-such-file.pth"),
    ],
)
def test_refused_in_one_line(options: str, says: str, data: Path, tmp_path: Path) -> None:
    run = trained(data, tmp_path / "run", 2, f"{SMALL} {options}")
    assert run.wait() == [2, 2]
    (line,) = "".join(run.err).splitlines()
    assert says in line
    assert not (tmp_path / "run/config.yaml").exists()


@pytest.mark.parametrize("trial", ["--dry-run", "--find-lr"])
def test_trial_is_refused_once(trial: str, data: Path, tmp_path: Path) -> None:
    """By process 0, while the others wait: a launcher ends all when the first has ended."""
    run = trained(data, tmp_path / "run", 2, f"{SMALL} {trial}")
    assert run.wait() == [2, 2]
    assert run.err[1] == ""
    (line,) = run.err[0].splitlines()
    assert "WORLD_SIZE: got 2 processes for a trial, expected one, without a launcher" in line


def test_damaged_image_is_named_once(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data/train/ape/0.png").write_bytes(b"no image")
    run = trained(tmp_path / "data", tmp_path / "run")
    assert run.wait() == [2, 2]
    (line,) = "".join(run.err).splitlines()
    assert "0.png" in line
    assert trained(tmp_path / "data", tmp_path / "run", 2, f"{ALL} --skip-bad").wait() == [0, 0]


def test_all_local_and_frozen_blocks(data: Path, alone: Path, tmp_path: Path) -> None:
    """Parameters without a gradient, and those whose gradient is zero, are waited for by nobody.

    Without clipping, behind which a wrong factor of the gradient hides.
    """
    for name, more in (("local", "--local-up-to-layer 4"), ("frozen", f"--weights {alone} --freeze 2")):
        for size in (1, 2):
            run = trained(
                data, tmp_path / f"{name}{size}", size, f"{SMALL} --batch-size 8 --clip-grad 0 --opt adamw {more}"
            )
            assert run.wait() == [0] * size, run.err
        assert_same(tmp_path / f"{name}2", tmp_path / f"{name}1")


LAUNCHERS = {
    "torchrun": "torch.distributed.run --standalone --nproc-per-node 2",
    "accelerate": "accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no "
    "--dynamo_backend no --main_process_port {port}",  # its name for several processes, of whatever device
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_launcher_that_is_stopped(launcher: str, data: Path, tmp_path: Path) -> None:
    """The real ones. SIGTERM to the launcher is handed on: the state is saved, and one process goes on."""
    if launcher == "accelerate":
        pytest.importorskip("accelerate")
    out, options = tmp_path / "run", f"{ALL} --epochs 400"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        words = (
            f"-m {LAUNCHERS[launcher].format(port=free.getsockname()[1])} -m convit train {data} --out {out} {options}"
        )
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, *words.split()], stdout=said, stderr=said, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        try:
            until = time.monotonic() + 90
            while not (out / "metrics.jsonl").exists():
                assert process.poll() is None, (tmp_path / "said").read_text()
                assert time.monotonic() < until
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        finally:
            process.kill()
    told = (tmp_path / "said").read_text()
    assert told.count(f"stopped by SIGTERM; the state is saved in {out}") == 1, told
    assert told.count("animals: 3 classes") == 1
    done = len(metrics(out))
    assert 0 < done < 400
    state = newest_state(out).name
    run = resumed(out, 1, partial(acts, STOPS, 1, 0))
    assert run.wait() == [143]
    assert f"resuming after epoch {int(state[6:10])}, step {int(state[-6:])}" in run.out[0]
