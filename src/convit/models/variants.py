"""The models by name, registered with timm: the paper's six, and small-image ones.

A name says size, patch and image: ``convit_tiny_patch16_224`` cuts 224 x 224 pixels into patches of 16.
"""

from dataclasses import asdict, dataclass
from typing import Any

import timm
import torch
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch.utils.flop_counter import FlopCounterMode

from convit.choices import STUDY_RIVALS
from convit.errors import InputError, nearest
from convit.hub import hub_faults
from convit.layers.init import FAN_IN, PUBLISHED_STD
from convit.models import convit as architecture
from convit.models.checkpoints import WEIGHTS_FILE, filter_pretrained, load_weights
from convit.models.convit import ConViT
from convit.models.stem import CONV, PATCH


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """The arguments of :class:`ConViT` that define a size; the defaults are those of the paper."""

    embed_dim: int
    num_heads: int
    depth: int = 12
    mlp_ratio: float = 4.0
    local_up_to_layer: int = 10
    hybrid_backbone: str = PATCH
    global_pool: str = "token"
    class_token: bool = True
    gate_init: float = 1.0
    weight_std: float | str = PUBLISHED_STD
    batch_norm: bool = False


def _small(width: int) -> Size:
    """For few and small images: see docs/small-data.md for what each part of it brings."""
    return Size(
        embed_dim=width,
        num_heads=9,
        depth=4,
        mlp_ratio=2.0,
        local_up_to_layer=3,
        hybrid_backbone=CONV,
        global_pool="avg",
        class_token=False,
        gate_init=3.0,
        weight_std=FAN_IN,
        batch_norm=True,
    )


SIZES = {
    "nano": _small(72),
    "micro": Size(embed_dim=144, num_heads=9, depth=4, local_up_to_layer=3),
    "mini": _small(144),
    "tiny": Size(embed_dim=192, num_heads=4),
    "tiny_plus": Size(embed_dim=256, num_heads=4),
    "small": Size(embed_dim=432, num_heads=9),
    "small_plus": Size(embed_dim=576, num_heads=9),
    "base": Size(embed_dim=768, num_heads=16),
    "base_plus": Size(embed_dim=1024, num_heads=16),
}
"""The paper's sizes (Table 1); ``micro``, as the paper's but a third as deep; ``nano`` and ``mini``, for small data."""

GEOMETRIES = {
    "nano": [(4, 16), (4, 32), (8, 64), (8, 128)],
    "micro": [(4, 16), (4, 32), (8, 64), (8, 128)],
    "mini": [(4, 16), (4, 32), (8, 64), (8, 128)],
    "tiny": [(4, 32), (8, 64), (16, 224)],
    "tiny_plus": [(16, 224)],
    "small": [(4, 32), (8, 64), (16, 224)],
    "small_plus": [(16, 224)],
    "base": [(16, 224)],
    "base_plus": [(16, 224)],
}
"""The patch and image sizes in pixels that each size is registered with; any other can be asked for by keyword."""

PUBLISHED = {"tiny": "convit_tiny.fb_in1k", "small": "convit_small.fb_in1k", "base": "convit_base.fb_in1k"}
"""The authors' weights, trained on ImageNet-1k at 224 pixels, as timm publishes them on the Hugging Face Hub."""

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
        **kwargs: arguments of :class:`ConViT`, in place of the name's own values (``num_classes=10``,
            ``local_up_to_layer=0`` for the plain-attention twin), and of ``timm.create_model``:
            ``pretrained=True`` for the published weights, also with other classes or another size;
            ``checkpoint_path=`` for a file, see :func:`convit.load_weights`.

    Raises:
        InputError: an unknown name, with the nearest; weights that are missing or do not fit.

    Example:
        >>> model = create_model("convit_micro_patch4_32", num_classes=10)
        >>> model.num_classes, len(model.blocks)
        (10, 4)
    """
    if name not in list_models():
        rival = f"; {name} is a rival of the study small-data, no ConViT"
        hint = rival if name in STUDY_RIVALS else nearest(name, list_models())
        raise InputError(f"model: got {name!r}, expected a name that 'convit models' lists{hint}")
    if kwargs.get("features_only"):
        raise ValueError("features_only: got True, expected timm.create_model for a feature extractor of that name")
    checkpoint_path = kwargs.pop("checkpoint_path", None)
    model = _create_pretrained(name, **kwargs) if kwargs.get("pretrained") else timm.create_model(name, **kwargs)
    assert isinstance(model, ConViT)
    if checkpoint_path:
        load_weights(model, checkpoint_path, new_head=model.num_classes == 0)
    return model


def _create_pretrained(name: str, **kwargs: Any) -> torch.nn.Module:
    """timm's loader, with one line in place of a network client's traceback."""
    if kwargs.get("pretrained_cfg") is not None or kwargs.get("pretrained_cfg_overlay") is not None:
        return timm.create_model(name, **kwargs)  # weights of the caller's own
    hub_id = getattr(timm.get_pretrained_cfg(name), "hf_hub_id", None)
    if hub_id:
        address = f"checkpoint_path=FILE with the {WEIGHTS_FILE} of https://huggingface.co/{hub_id}"
        with hub_faults(f"pretrained: could not fetch {hub_id} from the Hugging Face Hub", address):
            file = hf_hub_download(hub_id, WEIGHTS_FILE, cache_dir=kwargs.get("cache_dir"))
        try:
            return timm.create_model(name, **kwargs)  # finds it in the cache
        except SafetensorError as error:
            raise InputError(f"{file}: damaged ({error}); delete it to fetch it again") from error
    published = ", ".join(model_name(size, 16, 224) for size in PUBLISHED)
    raise InputError(f"pretrained: no weights are published for {name}; expected one of {published}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFacts:
    """Facts of a model that are known before training."""

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
    """Multiply-adds for one image (:func:`multiply_adds`)."""
    paper_top1: float | None
    """Top-1 on ImageNet-1k in percent, from the paper's Table 1."""


def model_facts() -> list[ModelFacts]:
    """The facts of every model; nothing is allocated or computed for it."""
    facts = []
    for size, geometries in GEOMETRIES.items():
        shape = SIZES[size]
        for patch_size, img_size in geometries:
            name = model_name(size, patch_size, img_size)
            model = create_model(name, device="meta")
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
                    flops=multiply_adds(name, (img_size, img_size)),
                    paper_top1=PAPER_TOP1.get(size) if img_size == 224 else None,
                )
            )
    return facts


def multiply_adds(model_name: str, image_size: tuple[int, int], **model_args: Any) -> int:
    """Multiply-adds of all matrix products of a forward pass for one image. Nothing is computed for it.

    The paper's Table 1 is lower, such as 5.4 G for S in place of 5.8 G: its numbers are near those of the linear layers
    and the patch embedding alone (5.3 G), without queries times keys and maps times values.

    Args:
        model_name: as of :func:`convit.create_model`.
        image_size: height and width in pixels.
        model_args: keywords of the model, ``num_classes`` among them.

    >>> round(multiply_adds("convit_tiny_patch16_224", (224, 224)) / 1e9, 1)
    1.3
    """
    return multiply_adds_of(create_model(model_name, device="meta", **model_args), image_size)


def multiply_adds_of(model: ConViT, image_size: tuple[int, int]) -> int:
    """The same of a model that is there, on the device ``meta``."""
    with FlopCounterMode(display=False) as counter:
        model.eval()(torch.empty(1, model.in_chans, *image_size, device="meta"))
    return counter.get_total_flops() // 2


def _register(size: str, patch_size: int, img_size: int) -> None:
    name = model_name(size, patch_size, img_size)
    shape = SIZES[size]

    def entrypoint(pretrained: bool = False, **kwargs: Any) -> ConViT:
        defaults = {"img_size": img_size, "patch_size": patch_size} | asdict(shape)
        out_indices = kwargs.pop("out_indices", 3)
        return build_model_with_cfg(
            ConViT,
            name,
            pretrained,
            pretrained_filter_fn=filter_pretrained,
            feature_cfg={"out_indices": out_indices, "feature_cls": "getter"},
            **(defaults | kwargs),
        )

    entrypoint.__name__ = entrypoint.__qualname__ = name
    entrypoint.__module__ = architecture.__name__
    register_model(entrypoint)


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
        "first_conv": "patch_embed.backbone.0" if SIZES[size].hybrid_backbone == CONV else "patch_embed.proj",
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

# timm goes by the module of an entry point: it lists and tests models by its last part, "convit", and looks into its
# default_cfgs. So the names are registered as if they were defined beside the class, as timm's own are.
setattr(architecture, "default_cfgs", default_cfgs)  # noqa: B010

for _size, _geometries in GEOMETRIES.items():
    for _patch_size, _img_size in _geometries:
        _register(_size, _patch_size, _img_size)
