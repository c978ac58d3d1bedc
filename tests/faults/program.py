"""``python -m tests.faults.program``: the command line, forked once a job from a process that has imported it.

A line of standard input is a :class:`Job` in JSON; a line of standard output is the status that a shell would see.
A job can ask for a fault at the n-th point where it writes into its folder.
"""

import builtins
import contextlib
import errno
import io
import json
import os
import signal
import sys
import traceback
from dataclasses import dataclass
from typing import Any, NoReturn

import convit_launcher

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(kw_only=True)
class Job:
    """A command, where its output goes, and what befalls it."""

    arguments: list[str]
    said: str
    """The file for standard output and error."""
    folder: str = ""
    """Points are operations on files below it."""
    fault: str = "none"
    """``"kill"`` (SIGKILL), ``"full"`` (no space left), ``"none"``."""
    first: int = 0
    """The first point that the fault is at."""
    last: int = 10**9
    """The last one."""
    points: str = ""
    """A file for the points that were met, a line each."""
    pictures: bool = True
    """Whether plots are drawn; they take longer than a small run."""


class Points:
    """Counts the operations that change files below the job's folder, and brings about the fault.

    Opening, making, renaming, removing and syncing are points before they happen; a write is one when half of its
    bytes are in the file.
    """

    def __init__(self, job: Job) -> None:
        self.job, self.folder, self.count, self.pid = job, os.path.realpath(job.folder), 0, os.getpid()

    def install(self) -> None:
        """From now on every operation counts."""
        self.record = os.open(self.job.points or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self.open, self.fsync = io.open, os.fsync
        builtins.open = io.open = self._open  # type: ignore[assignment]
        os.fsync = self._fsync  # type: ignore[assignment]
        sys.addaudithook(self._audit)

    def _audit(self, event: str, what: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(what[2], int) and what[2] & WRITING:
            self._point("open", what[0])
        elif event == "os.rename":
            self._point("rename", what[1])
        elif event in ("os.remove", "os.rmdir", "os.mkdir"):
            self._point(event.removeprefix("os."), what[0], what[-1])

    def _fsync(self, descriptor: int) -> None:
        self._point("sync", f"/proc/self/fd/{descriptor}")
        self.fsync(descriptor)

    def _open(self, file: Any, mode: str = "r", *more: Any, **named: Any) -> Any:
        stream = self.open(file, mode, *more, **named)
        if "r" not in mode and isinstance(file, str | os.PathLike) and self._is_ours(os.fspath(file)):
            write, half = stream.write, iter([True])

            def in_two(data: Any) -> int:
                if next(half, False):  # the first write of a file
                    middle = len(data) // 2
                    write(data[:middle])
                    stream.flush()
                    self._point("write", file)
                    return middle + int(write(data[middle:]))
                return int(write(data))

            stream.write = in_two
        return stream

    def _is_ours(self, path: str) -> bool:
        return os.path.realpath(path).startswith(self.folder + os.sep)

    def _point(self, operation: str, path: Any, folder: int = -1) -> None:
        if os.getpid() != self.pid or not isinstance(path, str | os.PathLike):
            return
        where = os.fspath(path)
        if folder >= 0:
            where = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), where)
        where = os.path.realpath(where)
        if not (where + os.sep).startswith(self.folder + os.sep):
            return
        os.write(self.record, f"{operation} {os.path.relpath(where, self.folder)}\n".encode())
        here = self.job.first <= self.count <= self.job.last
        self.count += 1
        if here and self.job.fault == "kill":
            os.kill(self.pid, signal.SIGKILL)
        if here and self.job.fault == "full" and operation not in ("remove", "rmdir"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), where)


def perform(job: Job) -> NoReturn:
    """Runs the job in this process, which ends with it."""
    status = 1
    try:
        os.setsid()
        output = os.open(job.said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.argv = ["convit", *job.arguments]
        if not job.pictures:
            from convit.training import plots

            for name in ("curves", "gates", "confusion"):
                setattr(plots, name, lambda *_, **__: None)
        if job.folder:
            Points(job).install()
        status = convit_launcher.main()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    """Performs the jobs, one after the other."""
    import convit.cli.predict
    import convit.cli.train  # noqa: F401

    for line in sys.stdin:
        if (child := os.fork()) == 0:
            perform(Job(**json.loads(line)))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # loader processes outlive a kill for a while
        print(status if status >= 0 else 128 - status, flush=True)


if __name__ == "__main__":
    main()
