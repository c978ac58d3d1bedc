"""The model, its named variants, and how to make one.

Only :mod:`convit.models.sizes` does without PyTorch; what needs it is imported when it is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from convit.models.sizes import list_models

if TYPE_CHECKING:
    from convit.models.checkpoints import load_weights
    from convit.models.convit import ConViT
    from convit.models.variants import create_model

__all__ = ["ConViT", "create_model", "list_models", "load_weights"]

_HOMES = {"ConViT": "convit", "create_model": "variants", "load_weights": "checkpoints"}


def __getattr__(name: str) -> Any:
    if name in _HOMES.values():
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
