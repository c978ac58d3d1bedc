"""``convit forecast RUN``: how much more images would give."""

from rich.table import Table

from convit.cli.console import Console
from convit.cli.options.forecast import ForecastCommand
from convit.cli.output import print_or_write_json
from convit.cli.screen import Screen
from convit.events import Said
from convit.experiments.forecast import Forecast, forecast
from convit.intervals import wilson_interval
from convit.training import Stopped


def main(options: ForecastCommand) -> int:
    """Trains and tells; 128 + the signal's number if it was stopped, with its run saved."""
    with Screen(stderr=True) as screen:
        try:
            found = forecast(options.run, screen, workers=options.workers, device=options.device)
        except Stopped as stopped:
            screen(Said(f"{stopped}; the same command goes on"))
            return 128 + stopped.signum
    if not print_or_write_json(found.to_dict() | {"conclusion": found.conclusion}, options.json):
        _show(found)
    return 0


def _show(found: Forecast) -> None:
    """A line for each number of images, and what follows."""
    console = Console()
    table = Table(box=None, pad_edge=False)
    kind = "test" if found.split == "test" else "validation"
    for heading in ("images to learn from", f"{kind} images right", "95% interval", ""):
        table.add_column(heading, justify="right" if heading else "left")
    for point in found.points:
        low, high = wilson_interval(point.measured - point.wrong, point.measured)
        right = f"{100 * (1 - point.wrong / point.measured):.1f}%"
        table.add_row(str(point.images), right, f"{100 * low:.0f} to {100 * high:.0f}%", "trained")
    for times, (top1, low, high) in found.more.items():
        table.add_row(str(times * found.points[-1].images), f"{top1:.0f}%", f"{low:.0f} to {high:.0f}%", "forecast")
    console.print(table)
    console.print(found.conclusion)
