"""Which model, for images of which size: decided from the data where the options leave it open."""

from typing import Any

from timm.layers import PatchEmbed

from convit.classifier import ClassifierConfig
from convit.errors import InputError
from convit.layers import GatedPositionalSelfAttention, TokenBatchNorm
from convit.layers.init import PUBLISHED_STD
from convit.models import ConViT, create_model
from convit.models.stem import CONV, PATCH
from convit.train.config import ModelConfig, TrainConfig
from convit.train.fields import given

PRETRAINED = "convit_tiny_patch16_224"
BY_NATIVE_SIZE = ((24, "convit_mini_patch4_16"), (48, "convit_mini_patch4_32"), (112, "convit_mini_patch8_64"))
"""The model for images whose shorter side is up to so many pixels."""
LARGE, LARGE_AND_MANY, MANY = "convit_mini_patch8_128", "convit_tiny_patch16_224", 20_000
"""The models for larger images: one that a laptop trains in minutes, and the paper's from so many images on."""
OPTIONS = {"num_heads": "heads", "hybrid_backbone": "stem"}
"""The option of an argument of :class:`convit.ConViT` with another name."""


def geometry(
    config: TrainConfig, native: int, images: int, start: ClassifierConfig | None = None
) -> tuple[str, dict[str, Any], dict[str, str]]:
    """Model name, model arguments, and why: by the images' native size unless they are given.

    Args:
        config: the options.
        native: the median of the images' shorter sides, in pixels.
        images: how many there are to learn from.
        start: the classifier to start from, if it is one of ours.

    Raises:
        InputError: an unknown model, a size that the patch does not divide, or more frozen blocks than there are.
    """
    asked = config.model
    name, decided = _model_name(config, native, images, start)
    args = dict(start.model_args) if start is not None and start.model_name == name else {}
    try:
        default = create_model(name, device="meta", **args)  # also refuses an unknown name
        height, width = (asked.image_size * 2)[:2] if asked.image_size else default.img_size
        args |= {"img_size": [height, width], "patch_size": asked.patch_size or default.patch_size}
        args |= _asked_shape(asked)
        model = create_model(name, device="meta", **args)
    except (ValueError, TypeError) as error:
        argument, colon, wrong = str(error).partition(":")
        raise InputError(f"{OPTIONS.get(argument, argument)}{colon}{wrong}") from error
    args = _architecture(model) | args
    if asked.freeze > len(model.blocks):
        raise InputError(f"freeze: got {asked.freeze}, expected at most the {len(model.blocks)} blocks of the model")
    about_gpsa = given(asked, ("gate_start", "ungated", "random_start", "freeze_gates", "freeze_gpsa"))
    if config.optim.position_lr not in (None, 1.0):
        about_gpsa.append("position-lr")
    if model.local_up_to_layer == 0 and about_gpsa:
        raise InputError(f"{about_gpsa[0]}: got it for a model without GPSA, expected one with some")
    if asked.freeze_gpsa and "position-lr" in about_gpsa:
        raise InputError("--freeze-gpsa and --position-lr: got both, expected one of them: nothing of it learns")
    if not asked.image_size:
        decided["image-size"] = f"{height} x {width} (the model's)"
    if asked.patch_size is None:
        patch = args["patch_size"]
        decided["patch-size"] = f"{patch} (the model's): {height // patch} x {width // patch} patches"
    return name, args, decided


def _asked_shape(asked: ModelConfig) -> dict[str, Any]:
    """What the options say of the model besides its sizes, as arguments of :class:`convit.ConViT`."""
    published = asked.weight_start == "published"
    named: dict[str, Any] = {
        "local_up_to_layer": asked.local_up_to_layer,
        "num_heads": asked.heads,
        "hybrid_backbone": asked.stem,
        "global_pool": asked.pool,
        "batch_norm": asked.norm and asked.norm == "batch",
        "use_pos_embed": asked.position_embedding,
        "gate_init": asked.gate_start,
        "weight_std": asked.weight_start and (PUBLISHED_STD if published else asked.weight_start),
        "gated": False if asked.ungated else None,
        "conv_init": False if asked.random_start else None,
    }
    return {name: value for name, value in named.items() if value is not None}


def _architecture(model: ConViT) -> dict[str, Any]:
    """What of a model's shape its name and sizes leave open, so that a saved model says it."""
    attention: Any = model.blocks[0].attn
    return {
        "local_up_to_layer": model.local_up_to_layer,
        "num_heads": attention.num_heads,
        "hybrid_backbone": PATCH if isinstance(model.patch_embed, PatchEmbed) else CONV,
        "global_pool": model.global_pool,
        "batch_norm": isinstance(model.norm, TokenBatchNorm),
        **({"gate_init": attention.gate_init} if isinstance(attention, GatedPositionalSelfAttention) else {}),
    }


def _model_name(
    config: TrainConfig, native: int, images: int, start: ClassifierConfig | None
) -> tuple[str, dict[str, str]]:
    if config.model.model is not None:
        return config.model.model, {}
    if start is not None:
        return start.model_name, {"model": f"{start.model_name} (that of the weights)"}
    if config.model.pretrained:
        return PRETRAINED, {"model": f"{PRETRAINED} (the smallest with published weights)"}
    large = LARGE if images < MANY else LARGE_AND_MANY
    name = next((fit for limit, fit in BY_NATIVE_SIZE if native <= limit), large)
    return name, {"model": f"{name} (the images' shorter side is {native} px in the median)"}
