"""The models by name: their sizes, and what is known without making one: parameters and operations.

A name says size, patch and image: ``convit_tiny_patch16_224`` cuts 224 x 224 pixels into patches of 16.
Imports nothing heavy.
"""

from dataclasses import dataclass

from convit.choices import CONV_STEM, FAN_IN, PATCH_STEM, PUBLISHED_STD, STUDY_RIVALS
from convit.errors import InputError, nearest


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """The arguments of :class:`convit.ConViT` that define a size; the defaults are those of the paper."""

    embed_dim: int
    num_heads: int
    depth: int = 12
    mlp_ratio: float = 4.0
    local_up_to_layer: int = 10
    hybrid_backbone: str = PATCH_STEM
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
        hybrid_backbone=CONV_STEM,
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

COUNTED = {
    "convit_nano_patch4_16": (272_395, 3_419_712),
    "convit_nano_patch4_32": (275_851, 15_342_912),
    "convit_nano_patch8_64": (281_233, 17_084_736),
    "convit_nano_patch8_128": (295_057, 97_319_232),
    "convit_micro_patch4_16": (1_156_015, 16_788_384),
    "convit_micro_patch4_32": (1_162_927, 69_734_304),
    "convit_micro_patch8_64": (1_183_663, 71_061_408),
    "convit_micro_patch8_128": (1_211_311, 341_458_848),
    "convit_mini_patch4_16": (932_455, 13_060_224),
    "convit_mini_patch4_32": (939_367, 55_569_024),
    "convit_mini_patch8_64": (961_795, 62_038_656),
    "convit_mini_patch8_128": (989_443, 306_115_200),
    "convit_tiny_patch4_32": (5_546_928, 362_344_704),
    "convit_tiny_patch8_64": (5_574_576, 364_114_176),
    "convit_tiny_patch16_224": (5_710_512, 1_258_287_360),
    "convit_tiny_plus_patch16_224": (9_972_912, 2_140_531_712),
    "convit_small_patch4_32": (27_409_258, 1_773_278_784),
    "convit_small_patch8_64": (27_471_466, 1_777_260_096),
    "convit_small_patch16_224": (27_777_322, 5_759_899_200),
    "convit_small_plus_patch16_224": (48_979_882, 10_022_867_712),
    "convit_base_patch16_224": (86_540_040, 17_529_160_704),
    "convit_base_plus_patch16_224": (153_134_856, 30_777_257_984),
}
"""Parameters at 1000 classes, and multiply-adds of all matrix products for one image
(:func:`convit.models.variants.multiply_adds`), of each model: the tests count both."""

PUBLISHED = {"tiny": "convit_tiny.fb_in1k", "small": "convit_small.fb_in1k", "base": "convit_base.fb_in1k"}
"""The authors' weights, trained on ImageNet-1k at 224 pixels, as timm publishes them on the Hugging Face Hub."""

SMALLEST_PUBLISHED = "convit_tiny_patch16_224"

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


def check_name(name: str) -> None:
    """Whether there is a model of that name.

    Raises:
        InputError: there is none; names the nearest.
    """
    if name not in list_models():
        rival = f"; {name} is a rival of the study small-data, no ConViT"
        published = [known for known in list_models() if known.startswith(f"{name}_patch16_")]  # convit_tiny is timm's
        hint = rival if name in STUDY_RIVALS else nearest(name, published or list_models())
        raise InputError(f"model: got {name!r}, expected a name that 'convit models' lists{hint}")


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
    """Multiply-adds of all matrix products for one image."""
    paper_top1: float | None
    """Top-1 on ImageNet-1k in percent, from the paper's Table 1."""


def model_facts() -> list[ModelFacts]:
    """The facts of every model. No model is made for it."""
    return [
        ModelFacts(
            name=name,
            image_size=img_size,
            patch_size=patch_size,
            width=shape.embed_dim,
            heads=shape.num_heads,
            blocks=shape.depth,
            gpsa_blocks=shape.local_up_to_layer,
            parameters=COUNTED[name][0],
            flops=COUNTED[name][1],
            paper_top1=PAPER_TOP1.get(size) if img_size == 224 else None,
        )
        for size, geometries in GEOMETRIES.items()
        for shape in [SIZES[size]]
        for patch_size, img_size in geometries
        for name in [model_name(size, patch_size, img_size)]
    ]
