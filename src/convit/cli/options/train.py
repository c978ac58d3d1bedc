"""What ``convit train`` can be told: all of a run, and what a command line adds."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from convit.cli.options import Command
from convit.errors import InputError
from convit.options import Arg, checked, options_of
from convit.training.options import Asked, asked_from


@dataclass(frozen=True, kw_only=True)
class CommandOptions:
    """Command: options from a file, looks ahead, trackers."""

    config: Annotated[Path | None, Arg("FILE.yaml")] = None
    """Take options from a file, such as the config.yaml of a run; those given besides go before them."""
    dry_run: bool = False
    """Say what would be done (data, model, steps, time, memory, disk), and do nothing."""
    find_lr: bool = False
    """Try learning rates from 1e-7 to 1 in 100 steps, draw lr-finder.png, say where the loss falls most steeply."""
    track: Literal["none", "tensorboard", "wandb"] = "none"
    """Send each epoch's figures to TensorBoard (in OUT/tensorboard) or Weights & Biases too."""


@dataclass(frozen=True, kw_only=True)
class TrainCommand(CommandOptions, Asked, Command):
    """Train a classifier on your images; writes a run folder. Each option that is left out is as its [brackets] say."""

    first: ClassVar[tuple[str, ...]] = (
        *("out", "model", "image_size", "pretrained", "weights", "epochs", "minutes", "batch_size", "lr", "seed"),
        *("skip_bad", "workers", "device", "overwrite", "resume", "config", "dry_run"),
    )

    @classmethod
    def of_words(cls, given: Mapping[str, Any]) -> Self:
        """With the values in ``--config FILE`` of what was not typed."""
        names = {option.name for option in options_of(CommandOptions)}
        own = checked(cls, {name: value for name, value in given.items() if name in names}, words=True)
        if own.get("dry_run") and own.get("find_lr"):
            raise InputError("dry-run and find-lr: got both, expected one of them")
        typed = {name: value for name, value in given.items() if name not in names}
        asked = asked_from(own.get("config"), typed, words=True)
        return cls(**own, **{option.name: getattr(asked, option.name) for option in options_of(Asked)})

    def look_ahead(self) -> None:
        """All that a run looks at before it reads images. Of several processes none does so by itself: the run says it
        once."""
        from convit.training.look_ahead import look_ahead

        if os.environ.get("WORLD_SIZE", "1") == "1":
            look_ahead(self)
