"""``convit train DATA``: from images to a run folder, or a look at what a run would be."""

from pathlib import Path
from typing import Any

from convit.analysis.history import attention_record
from convit.classifier import Classifier
from convit.cli.options.train import Options
from convit.cli.progress import Reporter
from convit.cli.tracking import Together, tracking
from convit.data import ImageSet
from convit.train import Stopped, plots, train
from convit.train.finders import find_batch_size, find_lr
from convit.train.trial import dry_run

RATE_PLOT = Path("lr-finder.png")


class RecordingReporter(Reporter):
    """Also notes how far every head looks, for each epoch's line of ``metrics.jsonl``."""

    def measure(self, classifier: Classifier, images: ImageSet) -> dict[str, Any]:
        """The non-locality of every head."""
        return attention_record(classifier, images)


def main(options: Options) -> int:
    """Trains, or looks ahead; 128 + the signal's number if training was stopped, with its state saved."""
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
