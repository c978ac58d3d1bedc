"""``convit train DATA``: from images to a run folder, or a look at what a run would be."""

from pathlib import Path

from convit.analysis.history import attention_record
from convit.cli.options.train import TrainCommand
from convit.cli.screen import Screen
from convit.cli.tracking import tracking
from convit.entry import start
from convit.events import Listener, Said, together
from convit.files import check_output
from convit.training import Stopped, plots
from convit.training.dry_run import dry_run
from convit.training.lr_finder import find_lr
from convit.training.options import Asked

RATE_PLOT = Path("lr-finder.png")


def main(options: TrainCommand) -> int:
    """Trains, or looks ahead; 128 + the signal's number if training was stopped, with its state saved."""
    with Screen() as screen, tracking(options.track, lambda text: screen(Said(text))) as tracker:
        if options.dry_run:
            dry_run(options.only(Asked), together(screen, tracker), measure=attention_record)
        elif options.find_lr:
            _find_lr(options.only(Asked), together(screen, tracker))
        else:
            try:
                start(options.only(Asked), screen, tracker)
            except Stopped as stopped:
                screen(Said(f"{stopped}"))
                screen(Said(f"continue with: convit train --resume {stopped.folder}"))
                return 128 + stopped.signum
    return 0


def _find_lr(asked: Asked, tell: Listener) -> None:
    """Draws the test, and says what is best."""
    check_output("find-lr", RATE_PLOT)
    test = find_lr(asked, tell)
    plots.rate_test(test.rates, test.losses, test.smooth, test.suggestion, RATE_PLOT)
    if test.suggestion is None:
        tell(Said(f"the loss nowhere falls in {len(test.rates)} steps: no --lr to suggest; see {RATE_PLOT}"))
        return
    tell(
        Said(
            f"--lr {test.suggestion:.1e}: there the loss falls most steeply; it is smallest at {test.lowest:.1e}, "
            f"of {len(test.rates)} steps up to {test.rates[-1]:.1e}; see {RATE_PLOT}"
        )
    )
