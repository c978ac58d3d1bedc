"""What long work tells, on the screen: progress bars on a terminal, plain lines in a pipe or a log."""

import time
from typing import Any, Self

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from convit.cli.console import Console
from convit.events import Advanced, EpochEnded, PassBegan, RunEnded, Said, time_left
from convit.files import printable
from convit.intervals import short_interval

WIDEST = 110
"""Columns of a text on a terminal: longer lines are hard to read."""

NAMED = 5
"""So many of a run's files are named at its end."""


class _Speed(ProgressColumn):
    """Images per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} images/s" if speed else "", style="cyan")


class Screen:
    """A listener that draws. To be used in a ``with`` block, at whose end the bar is gone.

    Args:
        columns: what stands to the right of a bar; those of a pass over images by default.
        stderr: keep standard output free, for results.
    """

    def __init__(self, *columns: ProgressColumn, stderr: bool = False) -> None:
        of_images = (
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
            _Speed(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[loss]}"),
        )
        self.console = Console(stderr=stderr)
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=28),
            *(columns or of_images),
            console=self.console,
            transient=True,
            redirect_stdout=not stderr,  # or rich would take what is printed meanwhile to standard error too
            disable=not self.console.is_terminal,
        )
        self.task: TaskID | None = None
        self.since: float | None = None
        self.seconds: list[float] = []

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self.console.may_be_gone():
            self._end_bar()
            self.bar.stop()

    def __call__(self, event: object) -> None:
        """Draws what an event says; of others than its own, nothing."""
        with self.console.may_be_gone():
            self._draw(event)

    def _draw(self, event: object) -> None:
        match event:
            case Said(text):
                self._say(text)
            case PassBegan(what, images, done):
                self._end_bar()
                if what.startswith("epoch") and not self.seconds:
                    self.since = time.monotonic()
                self.task = self.bar.add_task(what, total=images, completed=done, loss="")
            case Advanced(images, loss) if self.task is not None:
                self.bar.update(self.task, advance=images, loss="" if loss is None else f"loss {loss:.3f}")
            case EpochEnded(record, epochs):
                self._end_bar()
                self._say(f"{_epoch(dict(record), epochs)}{self._left(epochs - record['epoch'])}")
            case RunEnded():
                self._end_bar()
                self._show_end(event)

    def _show_end(self, ended: RunEnded) -> None:
        """What came of a run, in two columns: what each line is about, and what is to be said of it."""
        self._say("")
        rows = []
        for found in ended.findings:
            rows += [(found.topic, found.text), *([("", f"→ {found.advice}")] if found.advice else [])]
        name, *others = ended.files
        rows.append(("files", f"{ended.folder / name}: {ended.files[name]}."))
        rows.append(("", f"Beside it {', '.join(others[:NAMED])}{' and others' * (len(others) > NAMED)}."))
        width = max(map(len, ended.commands))
        commands = [f"{command:{width}}  {what}" for command, what in ended.commands.items()]
        rows += [("next" * (not number), command) for number, command in enumerate(commands)]
        column = max(len(topic) for topic, _ in rows)
        if not self.console.is_terminal:
            for topic, line in rows:
                self._say(f"{topic:{column}}  {line}".rstrip())
            return
        table = Table.grid(padding=(0, 2))
        for topic, line in rows:
            table.add_row(Text(topic, style="cyan"), Text(printable(line), overflow="fold"))
        self.console.print(table, width=min(self.console.width, WIDEST))

    def _say(self, text: str) -> None:
        """A line, above the bar."""
        self.console.print(printable(text), markup=False, soft_wrap=not self.console.is_terminal)
        self.console.file.flush()  # in a pipe or a log, too, a line is there when it is said

    def _left(self, epochs: int) -> str:
        """How long so many epochs will take, by those of this process."""
        now = time.monotonic()
        self.seconds.append(now - (self.since or now))
        self.since = now
        left = time_left(epochs * sum(self.seconds) / len(self.seconds))
        return left and f"  {left}"

    def _end_bar(self) -> None:
        if self.task is not None:
            self.bar.remove_task(self.task)
            self.task = None


def _epoch(record: dict[str, Any], epochs: int) -> str:
    """An epoch's figures in a line."""
    interval = short_interval(record["val_top1"], record["val_images"])
    top5 = f"top-5 {record['val_top5']:5.1f}%  " if "val_top5" in record else ""
    return (
        f"epoch {record['epoch']:{len(str(epochs))}}/{epochs}  "
        f"loss {record['train_loss']:.3f} (val {record['val_loss']:.3f})  "
        f"top-1 {record['val_top1']:5.1f}% ({interval})  {top5}{record['images_per_second']:,.0f} images/s"
    )
