"""The weight of a linear module, with all that other libraries hang on it."""

from typing import Any

import torch
from torch import Tensor, nn

from convit.ops import factorized


def is_untouched(module: nn.Module) -> bool:
    """Whether a module is one of PyTorch's own that nothing hangs on: no hook, no ``forward`` of its own."""
    hooks = (module._forward_pre_hooks, module._forward_hooks, module._backward_pre_hooks, module._backward_hooks)
    known = type(module) in (nn.Linear, nn.Dropout, nn.Identity)
    return known and not any(map(len, hooks)) and "forward" not in vars(module)


def linear_weight(linear: nn.Module, in_features: int, like: Tensor | None = None) -> Tensor:
    """The weight ``(out, in)`` of a linear module, whatever it is made of.

    Where something hangs on the module or stands in its place (a hook, a parametrisation, an adapter, an offloaded or
    quantised weight) it is read off by calling it, ``w_i = (f(s e_i) - f(-s e_i)) / 2s``: so all that takes part, as in
    any other call. The bias cancels, and has a gradient of exactly zero (DistributedDataParallel and timm expect one).

    Args:
        linear: the module.
        in_features: of its input.
        like: a tensor of the device to call it on, and of its type where it has no parameters; left out, its own
            parameters say where. (Offloaded ones come when it is called.)
    """
    weight: Any = getattr(linear, "weight", None)
    bias: Any = getattr(linear, "bias", None)
    if is_untouched(linear) and type(weight) in (Tensor, nn.Parameter) and isinstance(bias, Tensor):
        return weight + 0.0 * bias[:, None]
    # A pruned weight is no parameter, and made anew by each call; a quantised one is no tensor at all.
    own = next(linear.parameters(), torch.zeros(()) if like is None else like)
    device = own.device if like is None else like.device
    dtype = own.dtype if own.is_floating_point() else torch.get_default_dtype()
    # So large an input that little of a bias is left beside it; a power of two, so that none of the weight is lost.
    scale = 16.0 if dtype == torch.float16 else 256.0
    probe = scale * torch.eye(in_features, device=device, dtype=dtype)
    with factorized.without_autocast(device.type):
        return ((linear(probe) - linear(-probe)) / (2 * scale)).t()
