"""Runs of a second: random pictures of 8 x 8 pixels, a micro model on 2 x 2 patches."""

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from PIL import Image
from torch import Tensor

from convit.events import Advanced, Event, PassBegan, ignore
from convit.options import make
from convit.training.engine import Trainer
from convit.training.options import Asked, asked_from
from convit.training.planning import planned
from convit.training.run_folder import RunFolder
from convit.training.stopping import StopRequest

TIMINGS = ("seconds", "images_per_second")


def photos(root: Path, counts: dict[str, int], size: tuple[int, int] = (8, 8)) -> Path:
    """A folder of classes; each class has a brightness, and every picture its own noise."""
    rng = np.random.default_rng(0)
    for label, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 80, (size[1], size[0], 3)) + label * 170 // max(1, len(counts) - 1)
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i}.png")
    return root


def options(data: Path | str, out: Path | None = None, **more: Any) -> Asked:
    """The options of a small run; ``more`` are options by name."""
    values: dict[str, Any] = {"model": "convit_micro_patch4_32", "image_size": (8,), "patch_size": 4, "workers": 0}
    values |= {"epochs": 2, "batch_size": 4, "out": out, "device": "cpu"} | more
    return make(Asked, {"data": str(data), **values})


def resume(run: Path, **more: Any) -> Asked:
    """The options that go on with a run."""
    return asked_from(None, {"resume": run, **more, **({"data": str(more["data"])} if "data" in more else {})})


def trainer_of(asked: Asked) -> Trainer:
    """A trainer that has not made a step; nothing is written."""
    selection, plan = planned(asked, ignore)
    assert asked.out is not None
    return Trainer(plan, selection.splits, RunFolder(asked.out), ignore, StopRequest())


class StopAt:
    """A listener that sends this process a signal after the n-th batch of a pass; at its beginning for 0."""

    def __init__(self, what: str, batch: int, signum: int = signal.SIGINT, times: int = 1) -> None:
        self.what, self.batch, self.signum, self.times = what, batch, signum, times
        self.pass_, self.batches = "", -1

    def __call__(self, event: Event) -> None:
        if isinstance(event, PassBegan):
            self.pass_, self.batches = event.what, 0
        elif isinstance(event, Advanced):
            self.batches += 1
        else:
            return
        if (self.pass_, self.batches) == (self.what, self.batch):
            for _ in range(self.times):
                signal.raise_signal(self.signum)


def weights(run: Path) -> dict[str, Tensor]:
    """The best model's weights."""
    return safetensors.torch.load_file(run / "model.safetensors")


def newest_state(run: Path) -> Path:
    """The folder of the newest state."""
    return max((run / "checkpoints").iterdir())


def exact(run: Path) -> tuple[bytes, bytes, Any, list[Any]]:
    """All that must be the same in two runs that are the same: last state, best model, metrics but for the timings."""
    state = newest_state(run)
    meta = json.loads((state / "state.json").read_text().split("\n", 1)[1])  # its first line is a checksum
    return (
        (state / "tensors.safetensors").read_bytes(),
        (run / "model.safetensors").read_bytes(),
        _untimed(metrics(run)),
        _untimed([meta["progress"], meta["param_groups"], meta["scaler"]]),
    )


def _untimed(value: Any) -> Any:
    """JSON values without the timings."""
    if isinstance(value, list):
        return [_untimed(one) for one in value]
    if isinstance(value, dict):
        return {key: _untimed(one) for key, one in value.items() if key not in TIMINGS}
    return value


def metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl``."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
