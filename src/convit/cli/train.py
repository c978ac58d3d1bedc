"""``convit train DATA``: from images to a run folder."""

from collections.abc import Sequence

from convit.cli.options import parse
from convit.cli.progress import Reporter
from convit.train import Stopped, TrainConfig, train


def main(arguments: Sequence[str]) -> int:
    """Trains; 128 + the signal's number if it was stopped, with its state saved."""
    config = parse(
        TrainConfig,
        arguments,
        command="train",
        description="Train an image classifier. An option that is not given is as its [brackets] say, and printed.",
    )
    with Reporter() as reporter:
        try:
            train(config, reporter)
        except Stopped as stopped:
            reporter.message(f"{stopped}")
            reporter.message(
                f"continue with the same command, --out {stopped.folder} and --resume (in place of --overwrite)"
            )
            return 128 + stopped.signum
    return 0
