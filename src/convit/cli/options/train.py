"""What ``convit train`` can be told."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from convit.errors import InputError
from convit.train.config import TrainConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialOptions:
    """Looks ahead: each prints what it finds and ends, and leaves the run folder alone."""

    dry_run: bool = False
    """Say what would be done: data, model, steps, memory, learning rate."""
    find_batch_size: bool = False
    """Try which power of two is the largest --batch-size that fits into memory."""
    find_lr: bool = False
    """Try learning rates from 1e-7 to 1 in 100 steps; suggests the one at which the loss falls most steeply."""
    plot: Path | None = None
    """Picture (.png) of the schedule with --dry-run, of the losses with --find-lr [none; lr-finder.png]."""

    def __post_init__(self) -> None:
        asked = [name for name in ("dry_run", "find_batch_size", "find_lr") if getattr(self, name)]
        if len(asked) > 1:
            options = " and ".join(f"--{name.replace('_', '-')}" for name in asked)
            raise InputError(f"{options}: got {len(asked)} of them, expected one")
        if self.plot is not None:
            if not (self.dry_run or self.find_lr):
                raise InputError(f"plot: got {self.plot} without --dry-run and --find-lr, expected one of them")
            if self.plot.suffix.lower() != ".png":
                raise InputError(f"plot: got {self.plot}, expected a name that ends in .png")


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Train an image classifier. What is not given is as its [brackets] say."""

    config: Annotated[TrainConfig, tyro.conf.arg(name="")]
    trial: TrialOptions = field(default_factory=TrialOptions)
    track: Literal["none", "tensorboard", "wandb"] = "none"
    """Send each epoch's figures to TensorBoard (in OUT/tensorboard) or Weights & Biases too."""
