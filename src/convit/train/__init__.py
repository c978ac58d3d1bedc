"""Training: one call that goes from options to a run folder."""

from convit.train.config import (
    AugmentConfig,
    DataConfig,
    DistillConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    TrainConfig,
)
from convit.train.evaluation import Evaluation, evaluate
from convit.train.observer import Observer, Stopped
from convit.train.run import train

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
