"""Which device to compute on, and in which type."""

import torch

from convit.choices import Precision
from convit.errors import InputError


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; ``"auto"`` takes a GPU if there is one.

    Raises:
        InputError: ``"cuda"`` or ``"mps"`` on a machine without; nothing else is taken in its place.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    if name not in available:
        raise InputError(f"device: got {name!r}, expected auto, {', '.join(available)}")
    if not available[name]:
        there = ", ".join(kind for kind, found in available.items() if found)
        raise InputError(
            f"device: got {name!r}, which this machine (or this build of PyTorch) lacks; available: {there}"
        )
    return torch.device(name)


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Within it matrix products are of this type; in fp32 all is as the weights are."""
    dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    return torch.autocast(device.type, dtype, enabled=dtype is not None)
