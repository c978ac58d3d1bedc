"""The model, its named variants, and how to make one."""

from convit.models.checkpoints import load_weights
from convit.models.convit import ConViT
from convit.models.variants import create_model, list_models

__all__ = ["ConViT", "create_model", "list_models", "load_weights"]
