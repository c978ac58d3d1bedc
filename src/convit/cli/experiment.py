"""``convit experiment NAME DATA``: the paper's tables and figures, on any data."""

from rich.progress import TaskID, TextColumn

from convit.cli.options.experiment import ExperimentCommand
from convit.cli.screen import Screen
from convit.events import Said
from convit.experiments.grid import Standing, StoppedGrid
from convit.experiments.run import run_experiment
from convit.experiments.settings import Settings
from convit.files import printable


class GridScreen(Screen):
    """A listener that draws one bar for all runs and one for each at work; plain lines in a pipe."""

    def __init__(self) -> None:
        super().__init__(TextColumn("{task.fields[said]}", markup=False), stderr=True)
        self.whole = self.bar.add_task("all runs", total=1.0, said="")
        self.tasks: dict[str, TaskID] = {}

    def _draw(self, event: object) -> None:
        if not isinstance(event, Standing):
            super()._draw(event)
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
