"""Whether a model is still what its name makes, so that a folder of its weights and its name gives it again."""

from collections.abc import Mapping
from typing import Any

from timm.layers import DropPath
from torch import nn

from convit.errors import InputError
from convit.models.convit import ConViT
from convit.models.variants import create_model


def check_unchanged(model: ConViT, name: str, args: Mapping[str, Any]) -> None:
    """Compares the modules of a model with those that are made of its name.

    Args:
        model: the model.
        name: its name.
        args: the keywords, besides the number of classes, that it was made with.

    Raises:
        InputError: a module is of another kind or setting, or has a forward hook; names the first.
    """
    expected = _modules(create_model(name, num_classes=model.num_classes, **args, device="meta"))
    found = _modules(model)
    for module in {**expected, **found}:
        if found.get(module) != expected.get(module):
            raise InputError(
                f"model: got {found.get(module, 'nothing')} as {module or 'the model'}, expected "
                f"{expected.get(module, 'nothing')}, as in {name}: a folder has no other. Save its state_dict() with "
                "torch.save, or export it to ONNX"
            )


def _modules(model: nn.Module) -> dict[str, str]:
    """What each module of a model is, in words; where they are equal, equal weights give equal answers."""
    words = {}
    for name, module in model.named_modules():
        hooked = module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
        passes = isinstance(module, nn.Identity | nn.Dropout | DropPath)  # alike in evaluation
        kind = "Identity()" if passes else f"{type(module).__qualname__}({module.extra_repr()})"
        words[name] = kind + " with a forward hook" * bool(hooked)
    return words
