"""A contestant of a case as something to call: one forward pass, or one training step."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import timm
import torch
from torch import Tensor, nn

from convit.benchmark.cases import TIMM_NAMES, Case
from convit.choices import Precision
from convit.device import autocast
from convit.models import create_model

Step = Callable[[], object]


class CannotMeasureError(Exception):
    """A contestant that cannot run in a case; the message is what its row says, the others go on."""


def build(case: Case, who: str) -> nn.Module:
    """The model of a contestant, with the random start of its own code, on the CPU."""
    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "img_size": case.image_size,
        "patch_size": case.patch_size,
        "num_classes": case.num_classes,
    }
    if who in TIMM_NAMES:
        return timm.create_model(TIMM_NAMES[who][case.size], **shape)
    twin = {"local_up_to_layer": 0} if who == "twin" else {}
    return create_model(case.model, **{**case.model_args, **shape, **twin})


def random_images(case: Case, device: torch.device) -> Tensor:
    """A batch of noise."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(case.batch_size, 3, case.image_size, case.image_size, generator=generator).to(device)


def make_step(case: Case, model: nn.Module, images: Tensor) -> Step:
    """One step of the case with the model of a contestant, which is on the images' device.

    Raises:
        CannotMeasureError: when it is called, as :func:`cannot_measure` says.
    """
    running: nn.Module = torch.compile(model) if case.compiled else model  # type: ignore[assignment]
    make = forward_step if case.mode == "forward" else training_step
    return make(running, images, case.precision)


def forward_step(model: nn.Module, images: Tensor, precision: Precision = "fp32") -> Step:
    """Inference on one batch."""
    model.eval()

    def step() -> None:
        with torch.inference_mode(), autocast(images.device, precision):
            model(images)

    return step


def training_step(model: nn.Module, images: Tensor, precision: Precision = "fp32") -> Step:
    """Forward, backward and an AdamW update on one batch; in fp16 with a scaled loss."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    # From the usual 65536 the first steps overflow, and then the optimiser is left out.
    scaler = torch.amp.GradScaler(images.device.type, init_scale=256.0, enabled=precision == "fp16")
    target = torch.zeros(len(images), dtype=torch.long, device=images.device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(images.device, precision):
            loss = nn.functional.cross_entropy(model(images), target)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    return step


def wait_for(device: torch.device) -> Callable[[], None]:
    """What returns when the device has done all it was given."""
    return torch.accelerator.synchronize if device.type != "cpu" else lambda: None


@contextlib.contextmanager
def cannot_measure() -> Iterator[None]:
    """Makes a :class:`CannotMeasureError` of what is the machine's fault: memory, the compiler, an unknown type."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise CannotMeasureError("out of memory") from error
    except torch._dynamo.exc.TorchDynamoException as error:
        raise CannotMeasureError(f"does not compile: {_line(error)}") from error
    except RuntimeError as error:
        if "can't allocate memory" in str(error):  # the CPU's allocator has no error of its own
            raise CannotMeasureError("out of memory") from error
        if "not implemented for" in str(error):
            raise CannotMeasureError(f"not in PyTorch: {_line(error)}") from error
        raise


def _line(error: Exception) -> str:
    """The first line that says anything."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:60]
