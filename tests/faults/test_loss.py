"""A loss that is no number stops a run before the update, and keeps what was good."""

import re
from pathlib import Path

import safetensors.torch

import convit
from tests.faults.harness import COUNTS, Whole
from tests.training.small import newest_state

ABSURD = ("--lr", "1e12", "--warmup-epochs", "2", "--warmup-lr", "1e-5", "--clip-grad", "0")
"""The first step is at the rate of the start of the warm-up; then the weights go where no number is."""


def test_loss_that_is_no_number(long: Whole, out: Path) -> None:
    got = long.forks(*long.arguments(out, *ABSURD), pictures=False)
    assert got.status == 2, got.said
    assert "Traceback" not in got.said
    last = got.said.splitlines()[-1]
    found = re.search(r"loss: got (nan|inf) in epoch (\d+), step (\d+) \(images (.*?)\), expected a number", last)
    assert found is not None, last
    epoch, step = int(found[2]), int(found[3])
    names = found[4].split(", ")
    assert all(Path(name).is_file() for name in names), names
    state = newest_state(out)
    assert state.name == f"epoch-{epoch - 1:04d}-step-{step - 1:06d}"  # all that was before that step, and no more
    tensors = safetensors.torch.load_file(state / "tensors.safetensors")
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    again = long.forks(*long.arguments(out, *ABSURD), pictures=False)  # the same step, the same line
    assert again.said.splitlines()[-1] == last
    COUNTS["losses that are no number"] += 1
    if (out / "model.safetensors").exists():
        assert convit.load(out).model.head.weight.isfinite().all()
