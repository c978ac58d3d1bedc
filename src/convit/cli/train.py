"""``convit train DATA``: from images to a run folder, or a look at what a run would be."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from convit.analysis.history import attention_record
from convit.classifier import Classifier
from convit.cli.options import parse
from convit.cli.progress import Reporter
from convit.cli.tracking import Together, tracking
from convit.data import ImageSet
from convit.errors import InputError
from convit.train import Stopped, TrainConfig, plots, train
from convit.train.finders import find_batch_size, find_lr
from convit.train.trial import dry_run

RATE_PLOT = Path("lr-finder.png")


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
    """The options of ``convit train``: those of the run, and those that its ``config.yaml`` does not know."""

    config: Annotated[TrainConfig, tyro.conf.arg(name="")]
    trial: TrialOptions = field(default_factory=TrialOptions)
    track: Literal["none", "tensorboard", "wandb"] = "none"
    """Send each epoch's figures to TensorBoard (in OUT/tensorboard) or Weights & Biases too."""


class RecordingReporter(Reporter):
    """Also notes how far every head looks, for each epoch's line of ``metrics.jsonl``."""

    def measure(self, classifier: Classifier, images: ImageSet) -> dict[str, Any]:
        """The non-locality of every head."""
        return attention_record(classifier, images)


def main(arguments: Sequence[str]) -> int:
    """Trains, or looks ahead; 128 + the signal's number if training was stopped, with its state saved."""
    options = parse(
        Options,
        arguments,
        command="train",
        description="Train an image classifier. An option that is not given is as its [brackets] say, and printed.",
    )
    with RecordingReporter() as reporter:
        if _look_ahead(options, reporter):
            return 0
        try:
            with tracking(options.track, reporter.message) as tracker:
                train(options.config, Together(reporter, tracker))
        except Stopped as stopped:
            reporter.message(f"{stopped}")
            reporter.message(
                f"continue with the same command, --out {stopped.folder} and --resume (in place of --overwrite)"
            )
            return 128 + stopped.signum
    return 0


def _look_ahead(options: Options, reporter: Reporter) -> bool:
    """Does what a trial option asks for; False if none does."""
    trial = options.trial
    if trial.dry_run:
        dry_run(options.config, reporter, trial.plot)
    elif trial.find_batch_size:
        found = find_batch_size(options.config, reporter)
        reporter.message(f"--batch-size {found.size} is the largest power of two that fits: {found.reason}")
    elif trial.find_lr:
        test = find_lr(options.config, reporter)
        path = trial.plot or RATE_PLOT
        plots.rate_test(test.rates, test.losses, test.smooth, test.suggestion, path)
        if test.suggestion is None:
            reporter.message(f"the loss nowhere falls in {len(test.rates)} steps: no --lr to suggest; see {path}")
        else:
            reporter.message(
                f"--lr {test.suggestion:.1e}: there the loss falls most steeply; it is smallest at {test.lowest:.1e}, "
                f"of {len(test.rates)} steps up to {test.rates[-1]:.1e}; see {path}"
            )
    else:
        return False
    return True
