"""Where tables and lines of a command go."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import rich.console


class Console(rich.console.Console):
    """Rich's, without colours for numbers and the like; rich itself would end the program where a pipe is closed.

    Args:
        options: rich's, such as ``stderr=True``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, **options)

    def on_broken_pipe(self) -> None:
        """Leaves it to whoever prints."""
        raise BrokenPipeError

    @contextmanager
    def may_be_gone(self) -> Iterator[None]:
        """Within it the output may be a pipe that nobody reads any more, or a file on a full disk: then nothing more is
        drawn, and the work goes on."""
        try:
            yield
        except OSError:
            with suppress(OSError, ValueError):  # what is still in the stream's memory has to go somewhere at its end
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())
            self.quiet = True
