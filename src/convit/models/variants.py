"""The models of :mod:`convit.models.sizes`, made by name, with the published weights if they are asked for."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from timm.models import build_model_with_cfg
from torch.utils.flop_counter import FlopCounterMode

from convit.errors import InputError
from convit.models.checkpoints import filter_pretrained, load_weights
from convit.models.convit import ConViT
from convit.models.published import fetch_published
from convit.models.sizes import SIZES, check_name, model_name


def create_model(name: str, **kwargs: Any) -> ConViT:
    """A new model by name.

    Args:
        name: one of :func:`convit.list_models`.
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
    check_name(name)
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
    file = fetch_published(name, kwargs.get("cache_dir"))
    try:
        return timm.create_model(name, **kwargs)  # finds it in the cache
    except SafetensorError as error:
        raise InputError(f"{file}: damaged ({error}); delete it to fetch it again") from error


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


def build(size: str, patch_size: int, img_size: int, pretrained: bool, asked: Mapping[str, Any]) -> ConViT:
    """A model as timm's own entry points build theirs; its name is in timm's registry (:mod:`convit.timm_names`).

    asked: keywords of the model that take the place of the name's own, and of timm's loader.
    """
    kwargs = {"img_size": img_size, "patch_size": patch_size} | asdict(SIZES[size]) | dict(asked)
    out_indices = kwargs.pop("out_indices", 3)
    return build_model_with_cfg(
        ConViT,
        model_name(size, patch_size, img_size),
        pretrained,
        pretrained_filter_fn=filter_pretrained,
        feature_cfg={"out_indices": out_indices, "feature_cls": "getter"},
        **kwargs,
    )
