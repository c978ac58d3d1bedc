"""Runs as a shell starts them, what they leave behind, and how much was done to them."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import convit
from tests.faults.program import Job
from tests.training.small import TIMINGS, newest_state

FULL = os.environ.get("FAULTS") == "full"
"""All of it, as ``make fault-tests`` does; else the short form that every test run has."""

COUNTS: Counter[str] = Counter()
"""What was done and survived, for the line at the end."""

OPTIONS = (
    *("--model", "convit_micro_patch4_32", "--image-size", "8", "--patch-size", "4", "--device", "cpu"),
    *("--ema-decay", "0.9", "--mixup", "0.8", "--mix-prob", "0.7", "--drop-path", "0.2"),
    *("--rand-augment", "rand-m6-mstd0.5-inc1"),
    *("--save-minutes", "0.0000001"),  # after every step
)
LONG = ("--epochs", "6" if FULL else "3", "--batch-size", "4", "--workers", "1")
"""Epochs of five steps, whose images a process of its own loads."""
SHORT = ("--epochs", "1", "--batch-size", "8", "--workers", "0")
"""Two steps, one epoch: three states, of which the first is removed for the third."""

_ROOTS = [str(Path(convit.__file__).parents[1]), str(Path(__file__).parents[2])]
ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join([*_ROOTS, *filter(None, [os.environ.get("PYTHONPATH")])]),
    "OMP_NUM_THREADS": "1",  # as in the forked jobs, whose bits are compared with those of others
}


class Ended(NamedTuple):
    """What a shell sees of a command."""

    status: int
    said: str
    seconds: float


@contextmanager
def started(*arguments: object, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """``convit ARGUMENTS`` in a process group of its own, of which nothing is left afterwards."""
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "convit_launcher", *map(str, arguments)],
            **{"stdout": said, "stderr": subprocess.STDOUT, "start_new_session": True, "env": ENVIRONMENT} | options,
        )
        process.output = said  # type: ignore[attr-defined]
        try:
            yield process
        finally:
            signal_group(process, signal.SIGKILL)
            process.wait()


def signal_group(process: subprocess.Popen[str], signum: int) -> None:
    """As a terminal or a scheduler does: to the process and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signum)


def said_by(process: subprocess.Popen[str]) -> str:
    """What it has said so far."""
    output = process.output  # type: ignore[attr-defined]
    return os.pread(output.fileno(), 1 << 20, 0).decode()


def ended(process: subprocess.Popen[str], began: float, timeout: float = 600) -> Ended:
    """Waits for its end."""
    status = process.wait(timeout)
    return Ended(status if status >= 0 else 128 - status, said_by(process), time.monotonic() - began)


def command(*arguments: object, **options: Any) -> Ended:
    """Runs a command to its end."""
    began = time.monotonic()
    with started(*arguments, **options) as process:
        return ended(process, began)


def broken_off(*arguments: object, after: float, signum: int, first_line: bool = True) -> Ended:
    """Runs a command and sends its group a signal ``after`` seconds, counted from the first line that it says.

    Without ``first_line`` they are counted from the start. A command that is done before is left alone.
    """
    began = time.monotonic()
    with started(*arguments) as process:
        while first_line and process.poll() is None and not said_by(process):
            time.sleep(0.005)
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            signal_group(process, signum)
        return ended(process, began)


class Forks:
    """Commands without the seconds that it takes to import PyTorch: see :mod:`tests.faults.program`."""

    def __init__(self, folder: Path) -> None:
        self.said = folder / "said.txt"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.program"],
            **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": ENVIRONMENT},
        )

    def __call__(self, *arguments: object, **job: Any) -> Ended:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        began = time.monotonic()
        line = json.dumps(asdict(Job(arguments=[str(a) for a in arguments], said=str(self.said), **job)))
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        status = int(self.process.stdout.readline())
        return Ended(status, self.said.read_text(), time.monotonic() - began)

    def close(self) -> None:
        """Ends the process that forks."""
        self.process.kill()
        self.process.communicate()


def train_arguments(data: Path, out: Path, length: tuple[str, ...] = LONG, *more: object) -> list[object]:
    """``train DATA --out OUT ...``, or ``train --resume OUT`` where a run has begun: what a job script does."""
    if (out / "config.yaml").exists():
        return ["train", "--resume", out]
    return ["train", data, "--out", out, *OPTIONS, *length, *more]


def outcome(run: Path, predictions: str) -> dict[str, Any]:
    """All that must be equal in two runs that are the same, to the bit: everything but times and pictures."""
    state = newest_state(run)
    pictures = {path.name for path in run.iterdir() if ".png" in path.name}  # forks may draw none, nor finish one
    left = [path.name for path in run.rglob("*.tmp") if path.name not in pictures]
    assert not left, f"half-written files are left: {left}"
    meta = json.loads((state / "state.json").read_text().split("\n")[1])
    history = meta["progress"].pop("history")
    del meta["options"]["out"]  # the only option in which the runs differ
    return {
        "files": {path.name for path in run.iterdir()} - pictures,
        "state": (state.name, (state / "tensors.safetensors").read_bytes()),
        "progress": meta,
        "history": [_timeless(record) for record in history],
        "metrics": [_timeless(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()],
        **{name: (run / name).read_bytes() for name in ("model.safetensors", "config.json", "evaluation.json")},
        **{name: (run / name).read_bytes() for name in ("split.json", "images.json")},
        "predictions": predictions,
    }


def _timeless(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in TIMINGS}


def differences(run: dict[str, Any], whole: dict[str, Any]) -> list[str]:
    """The names of what differs; a comparison of megabytes would print them."""
    return [name for name in whole if run.get(name) != whole[name]]


def moments(seed: int, low: float, high: float) -> Iterator[float]:
    """Random moments between two, in seconds, the same for a seed."""
    draw = random.Random(seed)
    while True:
        yield draw.uniform(low, high)


class Whole:
    """A run that was left alone, through the command line, and what others are compared with.

    Args:
        data: a folder of images.
        run: where it goes.
        length: its epochs and steps, :data:`LONG` or :data:`SHORT`.
        forks: for what needs no process of its own.
        forked: whether the run itself does not.
    """

    def __init__(self, data: Path, run: Path, length: tuple[str, ...], forks: Forks, *, forked: bool) -> None:
        self.data, self.run, self.length, self.forks = data, run, length, forks
        arguments = self.arguments(run)
        got = forks(*arguments, pictures=False) if forked else command(*arguments)
        assert got.status == 0, got.said
        self.outcome = outcome(run, self._predictions(run))
        written = [(run / name).stat().st_mtime for name in ("config.yaml", "log.txt")]
        self.training = written[1] - written[0]
        """How many seconds it took from the first line that it said to the last."""

    def arguments(self, run: Path, *more: object) -> list[object]:
        """The same command for another run folder; where there is a run, that which goes on with it."""
        return train_arguments(self.data, run, self.length, *more)

    def goes_on(self, run: Path, *, forked: bool = True) -> Ended:
        """Continues a run that was broken off until it is done: it must be this one, bit for bit. Removes it then."""
        got = self.forks(*self.arguments(run), pictures=False) if forked else command(*self.arguments(run))
        assert got.status == 0, got.said
        self.same(run)
        shutil.rmtree(run)
        return got

    def same(self, run: Path) -> None:
        """Fails for a run that is not this one, bit for bit."""
        different = differences(outcome(run, self._predictions(run)), self.outcome)
        assert not different, f"differs from the run that was left alone in {different}"

    def _predictions(self, run: Path) -> str:
        if self.length == SHORT:  # of the same weights, config.json and code; there are too many of these runs
            return ""
        got = self.forks("predict", run, self.data, "--json")
        assert got.status == 0, got.said
        return got.said
