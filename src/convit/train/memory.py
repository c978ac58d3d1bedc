"""What training holds in memory: counted where it can be, measured where it cannot."""

import ctypes
import re
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from convit.data import seeded
from convit.train.evaluation import AUTOCAST
from convit.train.learner import Learner

_CLEAR, _STATUS, _MEMINFO = (Path("/proc") / name for name in ("self/clear_refs", "self/status", "meminfo"))
_CGROUP = Path("/sys/fs/cgroup")
_LIMITS = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))


def held_bytes(learner: Learner) -> int:
    """Bytes of weights, gradients, AdamW's two moments, moving average and teacher: what a run holds between steps."""
    modules = [learner.model, *([learner.ema.module] if learner.ema is not None else [])]
    modules += [learner.distiller.teacher] if learner.distiller is not None else []
    tensors = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    trained = sum(p.nbytes for p in learner.model.parameters() if p.requires_grad)
    return sum(tensor.nbytes for tensor in tensors) + 3 * trained


def activation_bytes(learner: Learner, images: int) -> int:
    """Bytes that the forward pass of a step of ``images`` images keeps for the backward pass, all parts at their peak.

    Counted for 2 and 4 images, each storage once and the weights left out, and continued in a straight line. What a
    step needs for a moment only, and what the libraries themselves take, is not in it.
    """
    two, four = (_saved_bytes(learner, count) for count in (2, 4))
    part = -(-images // learner.plan.config.optim.accumulate)
    return max(0, two + (four - two) * (part - 2) // 2)


def _saved_bytes(learner: Learner, count: int) -> int:
    weights = {p.untyped_storage().data_ptr() for p in learner.model.parameters()}
    saved: dict[int, int] = {}
    kept: list[Tensor] = []  # so that no storage's address is used again

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)
        return tensor

    images, target = random_batch(learner, count)
    dtype = AUTOCAST[learner.plan.config.optim.precision]
    learner.model.train()
    if learner.rows is not None:
        learner.rows.batch_size, learner.rows.shown = count, torch.arange(count, device=learner.device)
    with (
        seeded(learner.plan.config.run.seed),
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        torch.autocast(learner.device.type, dtype, enabled=dtype is not None),
    ):
        F.cross_entropy(learner.model(images.to(learner.device)).float(), target.to(learner.device))
    return sum(saved.values())


def random_batch(learner: Learner, count: int) -> tuple[Tensor, Tensor]:
    """``count`` images of noise, of the run's size, and targets, on the CPU."""
    height, width = learner.plan.preprocess.image_size
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, height, width, generator=generator)
    return images, torch.arange(count) % len(learner.plan.class_names)


def can_measure_pages() -> bool:
    """Whether this system tells of free memory, and of the peak of a process: Linux does."""
    return _CLEAR.exists() and _MEMINFO.exists()


def free_bytes() -> int:
    """Memory that this process may still take: what the system has available, or what its container leaves."""
    found = [_entry(_MEMINFO, "MemAvailable")]
    for limit, usage in _LIMITS:
        try:
            allowed, used = (int((_CGROUP / name).read_text()) for name in (limit, usage))
        except (OSError, ValueError):  # no such limit ("max"), or no such file
            continue
        found.append(max(0, allowed - used))
    return min(found)


def page_growth(step: Callable[[], object]) -> int:
    """By how many bytes the pages of this process rise, at most, while ``step`` runs. On Linux."""
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    _CLEAR.write_text("5")  # the peak is now what is held
    before = _entry(_STATUS, "VmRSS")
    step()
    return _entry(_STATUS, "VmHWM") - before


def in_words(count: float) -> str:
    """Bytes for people.

    >>> in_words(1536), in_words(3 * 2**30)
    ('1.5 KiB', '3.0 GiB')
    """
    power = next((power for power in range(3) if count < 1024 ** (power + 1)), 3)
    value, unit = count / 1024**power, ("bytes", "KiB", "MiB", "GiB")[power]
    return f"{value:.0f} {unit}" if power == 0 or value >= 100 else f"{value:.1f} {unit}"


def _entry(path: Path, name: str) -> int:
    """An entry of a file of ``/proc``, in bytes."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", path.read_text(), re.MULTILINE)
    assert found, name
    return 1024 * int(found[1])
