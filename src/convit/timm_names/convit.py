"""The models in timm's registry, as timm's own modules have theirs.

timm goes by the module of an entry point: it lists and tests models by the last part of its name, and looks into its
``default_cfgs``. So this module is called as timm's own is.
"""

from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import generate_default_cfgs, register_model
from torch import nn

from convit.choices import CONV_STEM
from convit.models.sizes import GEOMETRIES, PUBLISHED, SIZES, model_name

__all__: list[str] = []  # timm adds the names


def _default_cfg(size: str, img_size: int) -> dict[str, Any]:
    """What timm wants to know of a model: its input, its preprocessing, where its weights are."""
    published = PUBLISHED.get(size) if img_size == 224 else None
    return {
        "num_classes": 1000,
        "input_size": (3, img_size, img_size),
        "pool_size": None,
        "crop_pct": 0.875 if img_size == 224 else 1.0,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "patch_embed.backbone.0" if SIZES[size].hybrid_backbone == CONV_STEM else "patch_embed.proj",
        "classifier": "head",
        **({"hf_hub_id": f"timm/{published}", "license": "apache-2.0"} if published else {}),
    }


default_cfgs = generate_default_cfgs(
    {
        model_name(size, *geometry) + (".fb_in1k" if size in PUBLISHED and geometry[1] == 224 else ""): _default_cfg(
            size, geometry[1]
        )
        for size, geometries in GEOMETRIES.items()
        for geometry in geometries
    }
)


def _entry_point(size: str, patch_size: int, img_size: int) -> None:
    """Registers a function that makes a model. What it is made of is imported when one is: this module may be imported
    in the middle of an import of :mod:`convit.layers`, which is the first to import timm."""

    def entry_point(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        from convit.models.variants import build

        return build(size, patch_size, img_size, pretrained, kwargs)

    entry_point.__name__ = entry_point.__qualname__ = model_name(size, patch_size, img_size)
    register_model(entry_point)


for _size, _geometries in GEOMETRIES.items():
    for _patch_size, _img_size in _geometries:
        _entry_point(_size, _patch_size, _img_size)
