"""``convit train DATA``: from images to a run folder."""

from collections.abc import Sequence
from typing import Any

from convit.analysis.history import attention_record
from convit.classifier import Classifier
from convit.cli.options import parse
from convit.cli.progress import Reporter
from convit.data import ImageSet
from convit.train import Stopped, TrainConfig, train


class RecordingReporter(Reporter):
    """Also notes how far every head looks, for each epoch's line of ``metrics.jsonl``."""

    def measure(self, classifier: Classifier, images: ImageSet) -> dict[str, Any]:
        """The non-locality of every head."""
        return attention_record(classifier, images)


def main(arguments: Sequence[str]) -> int:
    """Trains; 128 + the signal's number if it was stopped, with its state saved."""
    config = parse(
        TrainConfig,
        arguments,
        command="train",
        description="Train an image classifier. An option that is not given is as its [brackets] say, and printed.",
    )
    with RecordingReporter() as reporter:
        try:
            train(config, reporter)
        except Stopped as stopped:
            reporter.message(f"{stopped}")
            reporter.message(
                f"continue with the same command, --out {stopped.folder} and --resume (in place of --overwrite)"
            )
            return 128 + stopped.signum
    return 0
