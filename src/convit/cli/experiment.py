"""``convit experiment NAME DATA``: the paper's tables and figures, on any data."""

import time
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from convit.cli.options.experiment import Options
from convit.errors import InputError
from convit.experiments import Settings, StoppedGrid, run_experiment, settle


class GridProgress:
    """One bar for all runs and one for each at work; plain lines in a pipe."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[said]}", markup=False),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.parts: dict[str, float] = {}
        self.tasks: dict[str, TaskID] = {}
        self.first: dict[str, float] = {}
        self.cells, self.complete, self.since = 0, 0, time.monotonic()
        self.whole = self.bar.add_task("all runs", total=1.0, said="")

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def message(self, text: str) -> None:
        """A line, above the bars."""
        self.console.print(text, markup=False, soft_wrap=not self.console.is_terminal)
        self.console.file.flush()

    def begin(self, cells: int, done: int) -> None:
        """Says what there is to do."""
        self.cells, self.complete, self.since = cells, done, time.monotonic()
        self.message(f"{cells} runs, {done} of them complete before" if done else f"{cells} runs")
        self._update()

    def progress(self, name: str, part: float) -> None:
        """Moves the bar of a run on; of one that goes on, what was done before does not count for the time left."""
        self.first.setdefault(name, part)
        self.parts[name] = part
        if name not in self.tasks:
            self.tasks[name] = self.bar.add_task(f"  {name}", total=1.0, said="")
        self.bar.update(self.tasks[name], completed=part)
        self._update()

    def end_cell(self, name: str, why: str | None) -> None:
        """A line for each run that is complete."""
        if name in self.tasks:
            self.bar.remove_task(self.tasks.pop(name))
        self.complete += 1
        self.parts[name] = 1.0
        left = self._left()
        self.message(f"{self.complete}/{self.cells} {name}{f': failed, {why}' if why else ''}{left and f', {left}'}")
        self._update()

    def _update(self) -> None:
        running = sum(self.parts[name] for name in self.tasks)
        part = (self.complete + running) / max(1, self.cells)
        said = f"{self.complete}/{self.cells} runs  {self._left()}"
        self.bar.update(self.whole, completed=part, said=said)

    def _left(self) -> str:
        """How long the rest takes, by what was done since the start; all runs are shown about as many images."""
        done = sum(part - self.first.get(name, 0.0) for name, part in self.parts.items())
        left = self.cells - self.complete - sum(self.parts[name] for name in self.tasks)
        if done < 0.05 or left <= 0:
            return ""
        minutes = (time.monotonic() - self.since) * left / done / 60
        return f"{minutes:.0f} min left" if 1 <= minutes < 90 else f"{minutes / 60:.1f} h left" if minutes >= 1 else ""


def main(options: Options) -> int:
    """Runs the grid and prints its table; 128 + the signal's number if it was stopped, with its runs saved."""
    if options.jobs < 1:
        raise InputError(f"jobs: got {options.jobs}, expected at least 1")
    given = {entry.name: getattr(options, entry.name) for entry in fields(Settings) if entry.name != "data"}
    settings = settle(options.name, options.data, given, preset=options.preset)
    out = options.out or Path("experiments") / f"{options.name}-{Path(options.data).name}"
    with GridProgress() as progress:
        try:
            outcome = run_experiment(
                options.name, settings, out, jobs=options.jobs, overwrite=options.overwrite, listener=progress
            )
        except StoppedGrid as stopped:
            progress.message(f"{stopped}; the same command goes on (without --overwrite)")
            return 128 + stopped.signum
    print(outcome.markdown)
    progress.message(f"all of it is in {outcome.folder}")
    return 0
