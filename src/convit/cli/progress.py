"""Progress bars on a terminal; plain lines in a pipe or a log."""

import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from convit.train import Observer


class _Speed(ProgressColumn):
    """Images per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} images/s" if speed else "", style="cyan")


class Reporter(Observer):
    """Shows how a run goes on.

    Args:
        stderr: keep standard output free, for results.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        self.console = Console(stderr=stderr, highlight=False)
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=28),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
            _Speed(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[loss]}"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.task: Any = None
        self.since: float | None = None
        self.seconds: list[float] = []

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_bar()
        self.bar.stop()

    def message(self, text: str) -> None:
        """A line, above the bar."""
        self.console.print(text, markup=False, soft_wrap=not self.console.is_terminal)
        self.console.file.flush()  # in a pipe or a log, too, a line is there when it is said

    def begin(self, what: str, images: int, done: int = 0) -> None:
        """A new bar in place of the last."""
        self._end_bar()
        if what.startswith("epoch") and not self.seconds:
            self.since = time.monotonic()
        self.task = self.bar.add_task(what, total=images, completed=done, loss="")

    def advance(self, images: int, loss: float | None = None) -> None:
        """Moves the bar on."""
        if self.task is not None:
            self.bar.update(self.task, advance=images, loss="" if loss is None else f"loss {loss:.3f}")

    def end_epoch(self, record: dict[str, Any], epochs: int) -> None:
        """A line for each epoch."""
        self._end_bar()
        width = len(str(epochs))
        top5 = f"top-5 {record['val_top5']:5.1f}%  " if "val_top5" in record else ""
        self.message(
            f"epoch {record['epoch']:{width}}/{epochs}  "
            f"loss {record['train_loss']:.3f} (val {record['val_loss']:.3f})  "
            f"top-1 {record['val_top1']:5.1f}%  {top5}{record['images_per_second']:,.0f} images/s"
            f"{self._left(epochs - record['epoch'])}"
        )

    def _left(self, epochs: int) -> str:
        """How long so many epochs will take, by those of this process."""
        now = time.monotonic()
        self.seconds.append(now - (self.since or now))
        self.since = now
        left = epochs * sum(self.seconds) / len(self.seconds)
        if epochs == 0 or left < 60:
            return ""
        return f"  {left / 60:.0f} min left" if left < 5400 else f"  {left / 3600:.1f} h left"

    def _end_bar(self) -> None:
        if self.task is not None:
            self.bar.remove_task(self.task)
            self.task = None
