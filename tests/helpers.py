"""Small tools that several test modules use."""

import io
from collections.abc import Callable
from html.parser import HTMLParser
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from convit import ConViT
from convit.errors import InputError

needs_export = pytest.mark.skipif(
    None in map(find_spec, ("onnx", "onnxscript", "onnxruntime")),
    reason='onnx, onnxscript or onnxruntime is not installed: pip install "convit[export]"',
)


def relative_error(got: Tensor, expected: Tensor) -> float:
    """The largest difference over the largest expected value."""
    scale = expected.double().abs().max().clamp_min(1e-300)
    return ((got.double() - expected.double()).abs().max() / scale).item()


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    """A picture of random pixels."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """A picture as a file's bytes."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


class Elements(HTMLParser):
    """The elements of a page, their attributes, and its text, also by the last id or tag before it."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.texts: dict[str, str] = {}
        self.last = ""
        self.feed(document)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self.last = dict(attrs).get("id") or tag

    def handle_data(self, data: str) -> None:
        self.text += data
        self.texts[self.last] = self.texts.get(self.last, "") + data


def bytes_of(letters: str) -> bytes:
    """The bytes of a text that holds seven bits in each character: the rule of ``pages.letters``."""
    bits = "".join(f"{ord(letter) & 127:07b}" for letter in letters)
    return bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits) - 7, 8))


def refused(call: Callable[[], object], *words: str) -> str:
    """The one line that ``call`` is refused with; all ``words`` are in it."""
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    return message


def randomise(module: nn.Module, std: float = 0.3) -> nn.Module:
    """Draws every parameter anew, gates and biases too, so that no start value hides a difference."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=std)
    return module


def gradients(module: nn.Module) -> dict[str, Tensor]:
    """A copy of the gradient of every parameter that has one."""
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def tiny_model(**overrides: Any) -> ConViT:
    """Two GPSA blocks of 9 heads and a plain one, on 4 x 4 patches."""
    shape = {"img_size": 16, "patch_size": 4, "num_classes": 5, "embed_dim": 36, "depth": 3, "num_heads": 9}
    return ConViT(**(shape | {"local_up_to_layer": 2} | overrides))


def step(model: nn.Module, x: Tensor) -> Tensor:
    """One forward and backward pass, with a loss that no symmetry of the outputs cancels."""
    model.zero_grad(set_to_none=True)
    out = model(x)
    (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
    return out.detach()


def without_gradient(model: nn.Module) -> set[str]:
    """The parameters that have no gradient, or one of nothing but zeros."""
    got = gradients(model)
    return {name for name, _ in model.named_parameters() if name not in got or not got[name].any()}


def biases_of_pos_proj(model: nn.Module) -> set[str]:
    """The parameters whose gradient is always zero: they cancel in the softmax."""
    return {name for name, _ in model.named_parameters() if name.endswith("pos_proj.bias")}
