"""Which model, for images of which size: decided from the facts of the data where it was not asked for."""

from dataclasses import dataclass
from typing import Any

from timm.layers import PatchEmbed

from convit.choices import CONV_STEM, PATCH_STEM, PUBLISHED_STD
from convit.classifier_config import ClassifierConfig
from convit.data.select import Facts
from convit.errors import InputError
from convit.layers import GatedPositionalSelfAttention, TokenBatchNorm
from convit.models import ConViT, create_model
from convit.models.sizes import SMALLEST_PUBLISHED
from convit.training.options import Asked

BY_NATIVE_SIZE = ((24, "convit_mini_patch4_16"), (48, "convit_mini_patch4_32"), (112, "convit_mini_patch8_64"))
"""The model for images whose shorter side is up to so many pixels."""
LARGE, LARGE_AND_MANY, MANY = "convit_mini_patch8_128", "convit_tiny_patch16_224", 20_000
"""The models for larger images: one that a laptop trains in minutes, and the paper's from so many images on."""
OPTIONS = {
    "num_heads": "heads",
    "hybrid_backbone": "stem",
    "global_pool": "pool",
    "batch_norm": "norm",
    "use_pos_embed": "position-embedding",
    "weight_std": "weight-init",
    "gated": "ungated",
    "conv_init": "random-init",
    "img_size": "image-size",
}
"""The option of an argument of :class:`convit.ConViT` with another name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelChoice:
    """A model, and why this one."""

    name: str
    args: dict[str, Any]
    """Keywords of the model besides ``num_classes``, as JSON values; complete, whatever its name comes to mean."""
    blocks: int
    reasons: dict[str, str]
    """By option that was left open."""


def choose_model(asked: Asked, facts: Facts, start: ClassifierConfig | None) -> ModelChoice:
    """The model that was asked for, or else by the native size of the images.

    Args:
        asked: the options.
        facts: of the data.
        start: the classifier to start from, if it is one of ours.

    Raises:
        InputError: an unknown model, or a size that the patch does not divide.
    """
    name, reasons = _name(asked, facts, start)
    args = dict(start.model_args) if start is not None and start.model_name == name else {}
    try:
        default = create_model(name, device="meta", **args)  # also refuses an unknown name
        height, width = (asked.image_size * 2)[:2] if asked.image_size else default.img_size
        args |= {"img_size": [height, width], "patch_size": asked.patch_size or default.patch_size}
        args |= _asked_shape(asked, fresh=start is None and not asked.pretrained)
        model = create_model(name, device="meta", **args)
    except (ValueError, TypeError) as error:
        argument, colon, wrong = str(error).partition(":")
        raise InputError(f"{OPTIONS.get(argument, argument).replace('_', '-')}{colon}{wrong}") from error
    args = _shape(model) | args
    if not asked.image_size:
        reasons["image_size"] = f"{height} x {width} (the model's)"
    if asked.patch_size is None:
        patch = args["patch_size"]
        reasons["patch_size"] = f"{patch} (the model's): {height // patch} x {width // patch} patches"
    return ModelChoice(name=name, args=args, blocks=len(model.blocks), reasons=reasons)


def _asked_shape(asked: Asked, *, fresh: bool) -> dict[str, Any]:
    """What the options say of the model besides its sizes, as arguments of :class:`convit.ConViT`.

    fresh: it starts from random weights, not from some that have a class token or have none.
    """
    published = asked.weight_init == "published"
    named: dict[str, Any] = {
        "local_up_to_layer": asked.local_up_to_layer,
        "num_heads": asked.heads,
        "hybrid_backbone": asked.stem,
        "global_pool": asked.pool,
        "class_token": asked.pool == "token" if asked.pool and fresh else None,
        "batch_norm": asked.norm and asked.norm == "batch",
        "use_pos_embed": asked.position_embedding,
        "gate_init": asked.gate_init,
        "weight_std": asked.weight_init and (PUBLISHED_STD if published else asked.weight_init),
        "gated": False if asked.ungated else None,
        "conv_init": False if asked.random_init else None,
    }
    return {name: value for name, value in named.items() if value is not None}


def _shape(model: ConViT) -> dict[str, Any]:
    """What of a model's shape its name and sizes leave open, so that a saved model says it."""
    block: Any = model.blocks[0]
    attention = block.attn
    return {
        "local_up_to_layer": model.local_up_to_layer,
        "num_heads": attention.num_heads,
        "mlp_ratio": block.mlp.fc1.out_features / model.embed_dim,
        "hybrid_backbone": PATCH_STEM if isinstance(model.patch_embed, PatchEmbed) else CONV_STEM,
        "global_pool": model.global_pool,
        "class_token": model.cls_token is not None,
        "batch_norm": isinstance(model.norm, TokenBatchNorm),
        **({"gate_init": attention.gate_init} if isinstance(attention, GatedPositionalSelfAttention) else {}),
    }


def _name(asked: Asked, facts: Facts, start: ClassifierConfig | None) -> tuple[str, dict[str, str]]:
    if asked.model is not None:
        return asked.model, {}
    if start is not None:
        return start.model_name, {"model": f"{start.model_name} (that of the weights)"}
    if asked.pretrained:
        return SMALLEST_PUBLISHED, {"model": f"{SMALLEST_PUBLISHED} (the smallest with published weights)"}
    large = LARGE if facts.images < MANY else LARGE_AND_MANY
    name = next((fit for limit, fit in BY_NATIVE_SIZE if facts.native_size <= limit), large)
    return name, {"model": f"{name} (the images' shorter side is {facts.native_size} px in the median)"}
