"""The models by name: their sizes, and what follows from these without making one: parameters and operations.

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
        hint = rival if name in STUDY_RIVALS else nearest(name, list_models())
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
    """Multiply-adds of all matrix products for one image (:func:`convit.models.variants.multiply_adds` counts them)."""
    paper_top1: float | None
    """Top-1 on ImageNet-1k in percent, from the paper's Table 1."""


def model_facts() -> list[ModelFacts]:
    """The facts of every model. No model is made for it."""
    return [
        ModelFacts(
            name=model_name(size, patch_size, img_size),
            image_size=img_size,
            patch_size=patch_size,
            width=shape.embed_dim,
            heads=shape.num_heads,
            blocks=shape.depth,
            gpsa_blocks=shape.local_up_to_layer,
            parameters=parameters_by_size(shape, patch_size, img_size),
            flops=multiply_adds_by_size(shape, patch_size, img_size),
            paper_top1=PAPER_TOP1.get(size) if img_size == 224 else None,
        )
        for size, geometries in GEOMETRIES.items()
        for shape in [SIZES[size]]
        for patch_size, img_size in geometries
    ]


def parameters_by_size(size: Size, patch_size: int, img_size: int, num_classes: int = 1000) -> int:
    """Parameters of a ConViT of colour images: the tests count those of every model.

    >>> parameters_by_size(SIZES["tiny"], 16, 224)
    5710512
    """
    width, patches = size.embed_dim, (img_size // patch_size) ** 2
    hidden, norm = int(size.mlp_ratio * width), 2 * width
    if size.hybrid_backbone == CONV_STEM:
        stem = sum(9 * before * after + 2 * after for before, after, _ in _convolutions(width, patch_size))
        stem += width * width + width
    else:
        stem = 3 * patch_size**2 * width + width
    attention = 4 * width**2 + width  # queries, keys and values have no bias
    position = (3 + 1 + 1) * size.num_heads  # of GPSA: the weights of r, their bias, the gate
    perceptron = 2 * width * hidden + hidden + width
    blocks = size.depth * (attention + perceptron + 2 * norm) + size.local_up_to_layer * position
    embeddings = (patches + size.class_token) * width
    return stem + embeddings + blocks + norm + (width + 1) * num_classes


def multiply_adds_by_size(size: Size, patch_size: int, img_size: int, num_classes: int = 1000) -> int:
    """Multiply-adds of all matrix products for one colour image: the tests count those of every model.

    With N patches in a square of side S, and C the width, GPSA has ``4 N C^2`` in its linear maps, ``2 N^2 C`` in
    content attention and ``2 N S C`` in positional attention; plain attention has the first two. Perceptrons of hidden
    width M have ``2 N C M``.

    >>> multiply_adds_by_size(SIZES["tiny"], 16, 224)
    1258287360
    """
    width, side = size.embed_dim, img_size // patch_size
    hidden = int(size.mlp_ratio * width)

    def block(tokens: int) -> int:
        return tokens * width * (4 * width + 2 * tokens + 2 * hidden)

    if size.hybrid_backbone == CONV_STEM:
        steps = _convolutions(width, patch_size)
        stem = sum(9 * before * after * (img_size // stride) ** 2 for before, after, stride in steps)
        stem += side**2 * width * width
    else:
        stem = side**2 * 3 * patch_size**2 * width
    local = size.local_up_to_layer * (block(side**2) + 2 * side**3 * width)
    plain = (size.depth - size.local_up_to_layer) * block(side**2 + size.class_token)
    return stem + local + plain + width * num_classes


def _convolutions(width: int, patch_size: int) -> list[tuple[int, int, int]]:
    """Of the convolutional stem (:class:`convit.models.stem.ConvStem`): channels before and after, and the stride from
    the image."""
    halvings = patch_size.bit_length() - 1
    channels = [3, *(width >> left for left in reversed(range(halvings)))]
    return [(channels[i], channels[i + 1], 2 << i) for i in range(halvings)]
