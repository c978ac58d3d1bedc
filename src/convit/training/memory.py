"""The memory that training needs, computed without training."""

import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2
from torch import Tensor, nn

from convit.data import seeded
from convit.training.evaluation import AUTOCAST
from convit.training.learner import Learner, decided


def held_bytes(learner: Learner) -> int:
    """Bytes of weights, gradients, the optimiser's moments, moving average and teacher: held between two steps."""
    modules = [learner.model, *([learner.ema.module] if learner.ema is not None else [])]
    modules += [learner.distiller.teacher] if learner.distiller is not None else []
    tensors = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    trained = sum(p.nbytes for p in learner.model.parameters() if p.requires_grad)
    return sum(tensor.nbytes for tensor in tensors) + trained + _moment_bytes(learner)


def _moment_bytes(learner: Learner) -> int:
    """Bytes of what the optimiser keeps of the parameters, found by a step of one like it that computes nothing."""
    groups = [
        group | {"params": [nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad) for p in group["params"]]}
        for group in learner.optimizer.param_groups
    ]
    like = create_optimizer_v2(groups, opt=decided(learner.plan.options.opt), lr=1.0)
    for group in like.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None
    like.step()
    kept = (value for state in like.state.values() for value in state.values())
    return sum(value.nbytes for value in kept if isinstance(value, Tensor) and value.ndim)


def activation_bytes(learner: Learner, images: int) -> int:
    """Bytes that the forward pass of a step of ``images`` images keeps for the backward pass, all parts at their peak.

    Counted for 2 and 4 images, or for 8 and 16 of more (attention has another form then), each storage once and without
    the weights, and extrapolated linearly. Temporary memory within a step, and the memory of the libraries, are not
    included.
    """
    part = -(-images // learner.plan.options.accumulate)
    some = 8 if part >= 8 else 2
    less, more = (_saved_bytes(learner, count) for count in (some, 2 * some))
    return max(0, less + (more - less) * (part - some) // some)


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

    images = torch.zeros(count, 3, *learner.plan.preprocess.image_size, device=learner.device)
    target = torch.zeros(count, dtype=torch.int64, device=learner.device)
    dtype = AUTOCAST[learner.plan.options.precision]
    learner.model.train()
    if learner.rows is not None:
        learner.rows.batch_size, learner.rows.shown = count, torch.arange(count, device=learner.device)
    with (
        seeded(learner.plan.options.seed),
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        torch.autocast(learner.device.type, dtype, enabled=dtype is not None),
    ):
        F.cross_entropy(learner.model(images).float(), target)
    return sum(saved.values())


def in_words(count: float) -> str:
    """Bytes for people.

    >>> in_words(1536), in_words(3 * 2**30)
    ('1.5 KiB', '3.0 GiB')
    """
    power = next((power for power in range(3) if count < 1024 ** (power + 1)), 3)
    value, unit = count / 1024**power, ("bytes", "KiB", "MiB", "GiB")[power]
    return f"{value:.0f} {unit}" if power == 0 or value >= 100 else f"{value:.1f} {unit}"
