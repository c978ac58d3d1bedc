"""Training: one call that goes from options to a run folder."""

import importlib
from typing import TYPE_CHECKING, Any

from convit.train.config import (
    AugmentConfig,
    DataConfig,
    DistillConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    TrainConfig,
)

if TYPE_CHECKING:
    from convit.train.evaluation import Evaluation, evaluate
    from convit.train.observer import Observer, Stopped
    from convit.train.run import train
else:
    # What needs PyTorch is imported when it is asked for: the help of `convit train` reads the options alone.
    _MODULES = {
        "Evaluation": "evaluation",
        "Observer": "observer",
        "Stopped": "observer",
        "evaluate": "evaluation",
        "train": "run",
    }

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


__all__ = [
    "AugmentConfig",
    "DataConfig",
    "DistillConfig",
    "Evaluation",
    "ModelConfig",
    "Observer",
    "OptimConfig",
    "RunConfig",
    "Stopped",
    "TrainConfig",
    "evaluate",
    "train",
]
