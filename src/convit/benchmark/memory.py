"""Peak memory of one step, each measured in a process of its own.

On a GPU it is PyTorch's own account, ``torch.cuda.max_memory_allocated``. The CPU has no such account, only the peak of
the pages that the process holds, which never falls by itself: so each contestant has a fresh process, Linux is told to
forget the peak before the step that counts (``/proc/self/clear_refs``), and ``VmHWM`` is read after it.
(``getrusage``'s ``ru_maxrss`` would not do: a new process starts with the peak of the one that started it.) Then

    peak = bytes of the tensors held before the step + (peak of the step's pages - pages before the step)

where weights, moments, gradients and images are held: what the libraries themselves take is left out, as on a GPU.
glibc is told to give every block of 64 KiB or more its own pages, which go back when it is freed. By default it keeps
freed blocks for later, and the peak then depends on the order of past sizes.
"""

import ctypes
import gc
import json
import os
import platform
import re
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from convit.benchmark.cases import Case
from convit.benchmark.steps import CannotMeasureError, Step, build, cannot_measure, make_step, random_images
from convit.errors import InputError

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}


def check_memory_is_measurable(device: torch.device) -> None:
    """Raises :class:`InputError` where there is no account of the peak: on mps, and on the CPU outside Linux."""
    if device.type == "cuda" or (device.type == "cpu" and os.access(_CLEAR, os.W_OK)):
        return
    raise InputError(
        f"memory: got device {device.type} on {platform.system()}, expected --device cuda, or cpu on Linux, where "
        f"{_CLEAR} resets the peak"
    )


def peak_memory(case: Case, who: str, device: torch.device) -> int:
    """Bytes that one step of a contestant takes at its peak, weights and moments included.

    Raises:
        CannotMeasureError: it ran out of memory, or does not run here.
    """
    task = json.dumps({"case": asdict(case), "who": who, "device": str(device), "threads": torch.get_num_threads()})
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"from {__name__} import _child; _child()"],
        input=task,
        env=os.environ | _MALLOC,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == -signal.SIGKILL:
        raise CannotMeasureError("out of memory: the system ended the process")
    if done.returncode:
        raise RuntimeError(f"the process that measures {case.title} ended with {done.returncode}:\n{done.stderr}")
    answer = json.loads(done.stdout.splitlines()[-1])
    if "error" in answer:
        raise CannotMeasureError(answer["error"])
    return int(answer["peak_bytes"])


def _child() -> None:
    """What the process of :func:`peak_memory` does: a task on standard input, an answer on standard output."""
    task = json.load(sys.stdin)
    torch.set_num_threads(task["threads"])
    answer: dict[str, object]
    try:
        with cannot_measure():
            answer = {"peak_bytes": _measure(Case(**task["case"]), task["who"], torch.device(task["device"]))}
    except CannotMeasureError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer))


def _measure(case: Case, who: str, device: torch.device) -> int:
    model, images = build(case, who).to(device), random_images(case, device)
    step = make_step(case, model, images)
    step()  # starts libraries, compiles, makes the optimiser's moments
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return torch.cuda.max_memory_allocated(device)
    return held_bytes(model, images, moments=case.mode == "train") + pages_of(step)


def pages_of(step: Step) -> int:
    """By how many bytes the pages of this process rise, at most, while a step runs."""
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    _CLEAR.write_text("5")  # the peak is now what is held
    before = _pages("VmRSS")
    step()
    return _pages("VmHWM") - before


def held_bytes(model: nn.Module, images: Tensor, *, moments: bool) -> int:
    """Bytes of weights, buffers, gradients, images, and of AdamW's two moments of each weight.

    >>> held_bytes(nn.Linear(3, 2, bias=False), torch.zeros(1, 3), moments=True)  # 4 (6 + 2 * 6 + 3)
    84
    """
    weights = list(model.parameters())
    tensors = [*weights, *model.buffers(), *(p.grad for p in weights if p.grad is not None), images]
    return sum(tensor.nbytes for tensor in tensors) + moments * 2 * sum(weight.nbytes for weight in weights)


def _pages(entry: str) -> int:
    """``VmRSS``, what the process holds, or ``VmHWM``, its peak, in bytes."""
    found = re.search(rf"^{entry}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    assert found, entry
    return 1024 * int(found[1])
