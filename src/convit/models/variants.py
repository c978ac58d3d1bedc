"""The models by name, registered with timm: the paper's six, and small-image ones.

A name says size, patch and image: ``convit_tiny_patch16_224`` cuts 224 x 224 pixels into patches of 16.
"""

from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch.utils.flop_counter import FlopCounterMode

from convit.errors import InputError, nearest
from convit.models.convit import ConViT


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """Width, heads and depth of a model, and the number of its blocks that are GPSA."""

    embed_dim: int
    num_heads: int
    depth: int = 12
    local_up_to_layer: int = 10


SIZES = {
    "micro": Size(embed_dim=144, num_heads=9, depth=4, local_up_to_layer=3),
    "tiny": Size(embed_dim=192, num_heads=4),
    "tiny_plus": Size(embed_dim=256, num_heads=4),
    "small": Size(embed_dim=432, num_heads=9),
    "small_plus": Size(embed_dim=576, num_heads=9),
    "base": Size(embed_dim=768, num_heads=16),
    "base_plus": Size(embed_dim=1024, num_heads=16),
}
"""The paper's sizes (Table 1), and ``micro``, a third as deep, for small images and a laptop."""

GEOMETRIES = {
    "micro": [(4, 16), (4, 32), (8, 64), (8, 128)],
    "tiny": [(4, 32), (8, 64), (16, 224)],
    "tiny_plus": [(16, 224)],
    "small": [(4, 32), (8, 64), (16, 224)],
    "small_plus": [(16, 224)],
    "base": [(16, 224)],
    "base_plus": [(16, 224)],
}
"""The patch and image sizes in pixels that each size is registered with; any other can be asked for by keyword."""

PAPER_TOP1 = {"tiny": 73.1, "tiny_plus": 76.7, "small": 81.3, "small_plus": 82.2, "base": 82.4, "base_plus": 82.5}
"""Top-1 accuracy in percent on ImageNet-1k, 300 epochs, as the paper's Table 1 reports it."""


def model_name(size: str, patch_size: int, img_size: int) -> str:
    """The name of a model: ``convit_tiny_patch16_224``."""
    return f"convit_{size}_patch{patch_size}_{img_size}"


def list_models() -> list[str]:
    """The names of the models, smallest first.

    >>> list_models()[-1]
    'convit_base_plus_patch16_224'
    """
    return [model_name(size, *geometry) for size, geometries in GEOMETRIES.items() for geometry in geometries]


def create_model(name: str, **kwargs: Any) -> ConViT:
    """A new model by name.

    Args:
        name: one of :func:`list_models`.
        **kwargs: what :class:`ConViT` takes, in place of the name's own values (``num_classes=10``,
            ``local_up_to_layer=0`` for the plain-attention twin), and what ``timm.create_model`` takes.

    Raises:
        InputError: an unknown name; names the nearest.

    Example:
        >>> model = create_model("convit_micro_patch4_32", num_classes=10)
        >>> model.num_classes, len(model.blocks)
        (10, 4)
    """
    if name not in list_models():
        hint = nearest(name, list_models())
        raise InputError(f"model: got {name!r}, expected a name that 'convit models' lists{hint}")
    if kwargs.get("features_only"):
        raise ValueError("features_only: got True, expected timm.create_model for a feature extractor of that name")
    model = timm.create_model(name, **kwargs)
    assert isinstance(model, ConViT)
    return model


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFacts:
    """What there is to know of a model before training it."""

    name: str
    image_size: int
    """Side of the image in pixels."""
    patch_size: int
    """Side of a patch in pixels."""
    width: int
    heads: int
    blocks: int
    gpsa_blocks: int
    """How many of the blocks are gated positional self-attention."""
    parameters: int
    """At 1000 classes."""
    flops: int
    """Multiply-adds for one image, which is what the paper's FLOPs count."""
    paper_top1: float | None
    """Top-1 on ImageNet-1k in percent, from the paper's Table 1."""


def model_facts() -> list[ModelFacts]:
    """The facts of every model; nothing is allocated or computed for it."""
    facts = []
    for size, geometries in GEOMETRIES.items():
        shape = SIZES[size]
        for patch_size, img_size in geometries:
            name = model_name(size, patch_size, img_size)
            model = create_model(name, device="meta").eval()
            with FlopCounterMode(display=False) as counter:
                model(torch.empty(1, 3, img_size, img_size, device="meta"))
            facts.append(
                ModelFacts(
                    name=name,
                    image_size=img_size,
                    patch_size=patch_size,
                    width=shape.embed_dim,
                    heads=shape.num_heads,
                    blocks=shape.depth,
                    gpsa_blocks=shape.local_up_to_layer,
                    parameters=sum(parameter.numel() for parameter in model.parameters()),
                    flops=counter.get_total_flops() // 2,
                    paper_top1=PAPER_TOP1.get(size) if img_size == 224 else None,
                )
            )
    return facts


def _register(size: str, patch_size: int, img_size: int) -> None:
    name = model_name(size, patch_size, img_size)
    shape = SIZES[size]

    def entrypoint(pretrained: bool = False, **kwargs: Any) -> ConViT:
        defaults = {
            "img_size": img_size,
            "patch_size": patch_size,
            "embed_dim": shape.embed_dim,
            "num_heads": shape.num_heads,
            "depth": shape.depth,
            "local_up_to_layer": shape.local_up_to_layer,
        }
        out_indices = kwargs.pop("out_indices", 3)
        return build_model_with_cfg(
            ConViT,
            name,
            pretrained,
            feature_cfg={"out_indices": out_indices, "feature_cls": "getter"},
            **(defaults | kwargs),
        )

    entrypoint.__name__ = entrypoint.__qualname__ = name
    register_model(entrypoint)


default_cfgs = generate_default_cfgs(
    {
        model_name(size, patch_size, img_size): {
            "num_classes": 1000,
            "input_size": (3, img_size, img_size),
            "pool_size": None,
            "crop_pct": 0.875 if img_size == 224 else 1.0,
            "interpolation": "bicubic",
            "mean": IMAGENET_DEFAULT_MEAN,
            "std": IMAGENET_DEFAULT_STD,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        }
        for size, geometries in GEOMETRIES.items()
        for patch_size, img_size in geometries
    }
)

for _size, _geometries in GEOMETRIES.items():
    for _patch_size, _img_size in _geometries:
        _register(_size, _patch_size, _img_size)
