"""ConViT made practical: vision transformers that start out as convolutions (d'Ascoli et al., ICML 2021).

``import convit`` is instant: a name that needs PyTorch imports it when it is used for the first time.
"""

import importlib
from typing import TYPE_CHECKING, Any

from convit.errors import InputError
from convit.timm_names import add_to_timm

if TYPE_CHECKING:
    from convit.analysis import inspect
    from convit.classifier import Classifier
    from convit.classifier_loading import load
    from convit.entry import train
    from convit.layers import GatedPositionalSelfAttention as GPSA
    from convit.models import ConViT, create_model, list_models, load_weights
    from convit.models.speed_up import restore, speed_up
    from convit.prediction import Prediction

__all__ = [
    "GPSA",
    "Classifier",
    "ConViT",
    "InputError",
    "Prediction",
    "create_model",
    "inspect",
    "list_models",
    "load",
    "load_weights",
    "restore",
    "speed_up",
    "train",
]

_HOMES = {
    "GPSA": "layers",
    "Classifier": "classifier",
    "ConViT": "models",
    "Prediction": "prediction",
    "create_model": "models",
    "inspect": "analysis",
    "list_models": "models",
    "load": "classifier_loading",
    "load_weights": "models",
    "restore": "models.speed_up",
    "speed_up": "models.speed_up",
    "train": "entry",
}
"""The module of each public name, but for those that need no PyTorch."""
_PARTS = ("analysis", "classifier", "data", "layers", "models", "ops", "training")
"""What ``convit.models`` and the like are after ``import convit`` alone."""


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return importlib.import_module(f"convit.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'convit' has no attribute {name!r}")
    home = importlib.import_module(f"convit.{_HOMES[name]}")
    value = globals()[name] = getattr(home, "GatedPositionalSelfAttention" if name == "GPSA" else name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PARTS})


add_to_timm()
