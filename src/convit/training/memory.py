"""The memory and the room on the disk that training needs, computed without training."""

import shutil
from collections import Counter
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convit.data import seeded
from convit.device import autocast
from convit.training.learner import Learner, decided
from convit.training.optimizers import make_optimizer
from convit.training.state import KEEP


def held_bytes(learner: Learner) -> int:
    """Bytes of weights, gradients, the optimiser's moments, moving average and teacher: held between two steps."""
    modules = [learner.model, *([learner.ema.module] if learner.ema is not None else [])]
    modules += [learner.distiller.teacher] if learner.distiller is not None else []
    tensors = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    trained = sum(p.nbytes for p in learner.model.parameters() if p.requires_grad)
    return sum(tensor.nbytes for tensor in tensors) + trained + _moment_bytes(learner)


def _moment_bytes(learner: Learner) -> int:
    """Bytes of what the optimiser keeps of the parameters, found by a step of one like it that computes nothing.

    What it keeps of a parameter depends on its group, shape and type: one of each is enough.
    """
    groups, alike = [], Counter[nn.Parameter]()
    for group in learner.optimizer.param_groups:
        first: dict[tuple[torch.Size, torch.dtype], nn.Parameter] = {}
        for parameter in group["params"]:
            if parameter.requires_grad:
                kind = parameter.shape, parameter.dtype
                alike[first.setdefault(kind, nn.Parameter(torch.empty_like(parameter, device="meta")))] += 1
        groups.append(group | {"params": list(first.values())})
    like = make_optimizer(groups, decided(learner.plan.options.opt), 1.0)
    for parameter in alike:
        parameter.grad = torch.empty_like(parameter)
    like.step()
    return sum(
        count * value.nbytes
        for parameter, count in alike.items()
        for value in like.state[parameter].values()
        if isinstance(value, Tensor) and value.ndim
    )


def disk_bytes(learner: Learner) -> int:
    """Bytes of the best model and the states that a run keeps, and of the one that is being written besides.

    What is small beside them is not counted: the plots, the report, the lists of images.
    """
    modules = [learner.model, *([learner.ema.module] if learner.ema is not None else [])]
    state = sum(tensor.nbytes for module in modules for tensor in module.state_dict().values())
    best = sum(tensor.nbytes for tensor in learner.best.state_dict().values())
    return best + (KEEP + 1) * (state + _moment_bytes(learner))


def free_bytes(folder: Path) -> int | None:
    """Bytes that may still be written where a folder is, or will be; None where the system does not say."""
    place = folder.absolute()
    try:
        return shutil.disk_usage(next(above for above in (place, *place.parents) if above.exists())).free
    except (OSError, StopIteration):
        return None


def activation_bytes(learner: Learner, images: int) -> int:
    """Bytes that the forward pass of a step of ``images`` images keeps for the backward pass, all parts at their peak.

    Counted for 2 and 4 images, or for 8 and 16 of more (attention has another form then), and never for more than a
    step has; each storage once and without the weights, and extrapolated linearly. Temporary memory within a step, and
    the memory of the libraries, are not included. The model is unchanged after it.
    """
    part = -(-images // learner.plan.options.accumulate)
    some = min(part, 8 if part >= 8 else 2)
    more = min(2 * some, part)
    less = _saved_bytes(learner, some)
    if more == some:
        return less
    return max(0, less + (_saved_bytes(learner, more) - less) * (part - some) // (more - some))


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

    buffers = [(buffer, buffer.clone()) for buffer in learner.model.buffers()]
    images = torch.zeros(count, 3, *learner.plan.preprocess.image_size, device=learner.device)
    target = torch.zeros(count, dtype=torch.int64, device=learner.device)
    learner.model.train()
    if learner.rows is not None:
        learner.rows.batch_size, learner.rows.shown = count, torch.arange(count, device=learner.device)
    with (
        seeded(learner.plan.options.seed),
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        autocast(learner.device, learner.plan.options.precision),
    ):
        F.cross_entropy(learner.model(images).float(), target)
    with torch.no_grad():
        for buffer, before in buffers:  # batch norm counts what it sees
            buffer.copy_(before)
    return sum(saved.values())


def size_words(count: float) -> str:
    """Bytes for people.

    >>> size_words(1536), size_words(3 * 2**30)
    ('1.5 KiB', '3.0 GiB')
    """
    power = next((power for power in range(3) if count < 1024 ** (power + 1)), 3)
    value, unit = count / 1024**power, ("bytes", "KiB", "MiB", "GiB")[power]
    return f"{value:.0f} {unit}" if power == 0 or value >= 100 else f"{value:.1f} {unit}"
