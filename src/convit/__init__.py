"""ConViT made practical: vision transformers that start out as convolutions (d'Ascoli et al., ICML 2021)."""

import sys

if sys.argv[:1] == ["-m"]:  # ``python -m convit`` imports this before ``__main__``, for seconds
    from convit_launcher import end_at_interrupts

    end_at_interrupts()

from convit.analysis import inspect
from convit.classifier import Classifier, load
from convit.entry import train
from convit.errors import InputError
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
