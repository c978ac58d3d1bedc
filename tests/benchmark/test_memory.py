"""The benchmark: what memory is counted, and where there is no account of it."""

import os
import subprocess
from dataclasses import replace
from typing import Any

import pytest
import torch

from convit.benchmark import memory as memory_module
from convit.benchmark.cases import Case
from convit.benchmark.memory import check_memory_is_measurable, held_bytes, pages_of, peak_memory
from convit.benchmark.steps import CannotMeasureError, build
from convit.benchmark.timing import measure
from convit.errors import InputError

CPU = torch.device("cpu")
MICRO = Case(model="convit_micro_patch4_32", image_size=8, batch_size=2)
linux = pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak of a process is reset by Linux alone"
)


@linux
def test_pages_of_a_step() -> None:
    """100 and then 60 MB, not at once: the peak is 100 MB, wherever the peak was before."""

    def step() -> None:
        for megabytes in (100, 60):
            torch.ones(megabytes * 250_000)

    torch.ones(75_000_000)  # 300 MB, earlier and higher
    assert pages_of(step) == pytest.approx(100e6, abs=3e6)


def test_held_bytes() -> None:
    layer = torch.nn.Linear(5, 3)
    images = torch.zeros(2, 5)
    assert held_bytes(layer, images, moments=False) == 4 * (18 + 10)
    layer(images).sum().backward()
    assert held_bytes(layer, images, moments=True) == 4 * (18 + 10 + 18 + 36)


@linux
def test_peak_memory_in_a_process_of_its_own() -> None:
    """A training step holds weights, gradients and two moments; twice the batch is twice the activations."""
    case = replace(MICRO, image_size=64, batch_size=16, mode="train")
    weights = sum(weight.nbytes for weight in build(case, "convit").parameters())
    small, large = (peak_memory(replace(case, batch_size=batch), "convit", CPU) for batch in (16, 32))
    assert small > 4 * weights
    assert large - small == pytest.approx(small - 4 * weights, rel=0.2)


@linux
def test_memory_is_measured_before_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(arguments: Any, **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(arguments, -9, "", "")

    monkeypatch.setattr(memory_module.subprocess, "run", killed)
    (measured,) = measure([replace(MICRO, memory=True)], device=CPU, rounds=1)
    for result in measured.results:
        assert (result.seconds, result.peak_bytes) == ((), None)
        assert result.error == "out of memory: the system ended the process"


def test_a_child_that_cannot_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for code, out, error, says in (
        (0, 'warning\n{"error": "out of memory"}\n', CannotMeasureError, "out of memory"),
        (1, "", RuntimeError, "the trace"),
    ):
        done = subprocess.CompletedProcess([], code, out, "the trace")
        monkeypatch.setattr(memory_module.subprocess, "run", lambda *_, done=done, **__: done)
        with pytest.raises(error, match=says):
            peak_memory(MICRO, "convit", CPU)


def test_memory_where_there_is_no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    check_memory_is_measurable(torch.device("cuda"))
    with pytest.raises(InputError, match="memory: got device mps"):
        check_memory_is_measurable(torch.device("mps"))
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match=r"memory: got device cpu on .* expected --device cuda, or cpu on Linux"):
        check_memory_is_measurable(CPU)
