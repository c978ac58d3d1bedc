"""What other libraries act on in these tests: the three layers, a small ConViT, and the same with plain attention."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from convit import GPSA
from convit.layers import PositionalSelfAttention, SelfAttention
from tests.helpers import randomise, tiny_model

F32, F64 = torch.float32, torch.float64
DIM, HEADS, GRID, PREFIX = 6, 3, (2, 3), 1  # a rectangle, and a token without a position
TOKENS = PREFIX + GRID[0] * GRID[1]
LAYERS = {"sa": SelfAttention, "psa": PositionalSelfAttention, "gpsa": GPSA}
MODELS = {"convit": 1, "twin": 0}  # how many of the two blocks are GPSA

layers = pytest.mark.parametrize("name", list(LAYERS))
positional = pytest.mark.parametrize("name", ["psa", "gpsa"])
models = pytest.mark.parametrize("name", list(MODELS))
subjects = pytest.mark.parametrize("name", [*LAYERS, *MODELS])
quiet = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning", "ignore::torch.jit.TracerWarning"
)

Arguments = tuple[Any, ...]


def build(name: str, **keywords: Any) -> nn.Module:
    """One of the five subjects, with its weights as they start."""
    if name in MODELS:
        return tiny_model(depth=2, local_up_to_layer=MODELS[name], qkv_bias=True, **keywords)
    return LAYERS[name](DIM, HEADS, qkv_bias=True, **keywords)


def draw(name: str, dtype: torch.dtype = F64, batch: int = 2) -> tuple[nn.Module, Arguments]:
    """The same with every parameter at random, and what to call it with: images, or tokens and where they lie."""
    module = randomise(build(name)).to(dtype).eval()
    if name in MODELS:
        return module, (torch.randn(batch, 3, 8, 12, dtype=dtype),)
    return module, (torch.randn(batch, TOKENS, DIM, dtype=dtype), GRID, PREFIX)


def loss(out: Tensor) -> Tensor:
    """A number that no symmetry of the outputs leaves unchanged."""
    return (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum()


def results(module: nn.Module, args: Arguments, call: Callable[..., Tensor] | None = None) -> dict[str, Tensor]:
    """The output of the module, or of ``call``, and the gradient of every trainable parameter and of the input."""
    wanted = {name: p for name, p in module.named_parameters() if p.requires_grad}
    wanted["input"] = x = args[0].detach().clone().requires_grad_()
    out = (call or module)(x, *args[1:])
    gradients = torch.autograd.grad(loss(out), list(wanted.values()))
    return {"output": out.detach()} | dict(zip(wanted, gradients, strict=True))


def assert_close(got: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-10) -> None:
    """Relative to the largest value of each tensor; some gradients are zero but for rounding."""
    assert list(got) == list(expected)
    for key, value in expected.items():
        bound = tolerance * value.abs().max().clamp_min(1e-2).item()
        torch.testing.assert_close(got[key], value, atol=bound, rtol=0, msg=lambda text, key=key: f"{key}: {text}")
