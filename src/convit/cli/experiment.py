"""``convit experiment NAME DATA``: the paper's tables and figures, on any data."""

from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, TaskID, TextColumn

from convit.cli.console import Console
from convit.cli.options.experiment import ExperimentCommand
from convit.events import Said
from convit.experiments.grid import Standing, StoppedGrid
from convit.experiments.run import run_experiment
from convit.experiments.settings import Settings
from convit.files import printable


class GridScreen:
    """A listener that draws one bar for all runs and one for each at work; plain lines in a pipe."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[said]}", markup=False),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.whole = self.bar.add_task("all runs", total=1.0, said="")
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self.console.may_be_gone():
            self.bar.stop()

    def __call__(self, event: Said | Standing) -> None:
        """Draws what an event says."""
        with self.console.may_be_gone():
            self._draw(event)

    def _draw(self, event: Said | Standing) -> None:
        if isinstance(event, Said):
            self.console.print(printable(event.text), markup=False, soft_wrap=not self.console.is_terminal)
            self.console.file.flush()
            return
        for name in self.tasks.keys() - event.running.keys():
            self.bar.remove_task(self.tasks.pop(name))
        for name, part in event.running.items():
            if name not in self.tasks:
                self.tasks[name] = self.bar.add_task(f"  {name}", total=1.0, said="")
            self.bar.update(self.tasks[name], completed=part)
        part = (event.complete + sum(event.running.values())) / max(1, event.cells)
        self.bar.update(self.whole, completed=part, said=f"{event.complete}/{event.cells} runs  {event.left}")


def main(options: ExperimentCommand) -> int:
    """Runs the grid and prints its table; 128 + the signal's number if it was stopped, with its runs saved."""
    with GridScreen() as screen:
        try:
            outcome = run_experiment(
                options.only(Settings), options.out, jobs=options.jobs, overwrite=options.overwrite, tell=screen
            )
        except StoppedGrid as stopped:
            screen(Said(f"{stopped}; the same command goes on (without --overwrite)"))
            return 128 + stopped.signum
    print("\n".join(map(printable, outcome.markdown.split("\n"))))
    screen(Said(f"all of it is in {outcome.folder}"))
    return 0
