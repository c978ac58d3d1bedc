"""The models that are looked at, tiny: each with its images and its grid; and all that a look could leave in them."""

from collections.abc import Callable
from typing import Any

import timm
import torch
from torch import Tensor, nn

import convit
from convit.analysis import Inspection, inspect
from tests.helpers import noise, randomise, tiny_model


def ours(**overrides: Any) -> nn.Module:
    """Two GPSA blocks and a plain one, 9 heads; patches of 4 pixels."""
    return randomise(tiny_model(**overrides), std=0.3).eval()


def timms(**overrides: Any) -> nn.Module:
    """timm's ConViT with two GPSA blocks and a plain one, 4 heads; 3 x 3 patches of 16 pixels."""
    shape = {"img_size": 48, "depth": 3, "local_up_to_layer": 2, "embed_dim": 6, "num_heads": 4, "num_classes": 5}
    return randomise(timm.create_model("convit_tiny", **(shape | overrides)), std=0.3).eval()


def sped_up() -> nn.Module:
    """The same, made fast."""
    model = timms()
    convit.speed_up(model)
    return model


def vit(name: str = "deit_tiny_patch16_224", **overrides: Any) -> nn.Module:
    """timm's DeiT with two blocks of 4 heads; 2 x 3 patches of 16 pixels."""
    shape = {"img_size": (32, 48), "embed_dim": 24, "depth": 2, "num_heads": 4, "num_classes": 5}
    return randomise(timm.create_model(name, **(shape | overrides)), std=0.3).eval()


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int], tuple[int, int]]] = {
    # how it is built, the images' size, their grid
    "ours": (ours, (16, 16), (4, 4)),
    "ours, a rectangle": (ours, (12, 20), (3, 5)),
    "ours, ungated": (lambda: ours(gated=False), (12, 20), (3, 5)),
    "ours, plain": (lambda: ours(local_up_to_layer=0), (12, 20), (3, 5)),
    "ours, all gated": (lambda: ours(local_up_to_layer=3), (12, 20), (3, 5)),
    "timm's ConViT": (timms, (48, 48), (3, 3)),
    "timm's ConViT, sped up": (sped_up, (48, 48), (3, 3)),
    "DeiT": (vit, (32, 48), (2, 3)),
    "DeiT, distilled": (lambda: vit("deit_tiny_distilled_patch16_224"), (32, 48), (2, 3)),
    "ViT without a class token": (
        lambda: vit("vit_tiny_patch16_224", class_token=False, global_pool="avg", dynamic_img_size=True),
        (64, 32),
        (4, 2),
    ),
    "ViT with registers": (lambda: vit("vit_tiny_patch16_224", reg_tokens=4, qk_norm=True), (32, 48), (2, 3)),
}


def images(size: tuple[int, int], batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))


def seen_by(model: nn.Module, **options: Any) -> Inspection:
    """A picture of noise as a model sees it."""
    return inspect(model, noise(48, 48), name="noise.png", **options)


def state(model: nn.Module) -> dict[str, Any]:
    """All of a model that a capture or a mask could leave changed, but its weights."""
    return {
        "modules": {
            name: (id(m), type(m), m.training, list(vars(m)), vars(m).get("fused_attn"))
            for name, m in model.named_modules()
        },
        "parameters": {name: (id(p), p.requires_grad, p.grad is None) for name, p in model.named_parameters()},
        "buffers": {name: id(b) for name, b in model.named_buffers()},
        "hooks": {
            name: [len(d) for key, d in vars(m).items() if key.endswith("_hooks")] for name, m in model.named_modules()
        },
    }


def same_weights(model: nn.Module, before: dict[str, Tensor]) -> bool:
    return list(before) == list(model.state_dict()) and all(
        torch.equal(model.state_dict()[n], t) for n, t in before.items()
    )
