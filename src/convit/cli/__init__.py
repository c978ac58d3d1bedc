"""The commands, a thin module each, and how their faults become one line and an exit status.

What a command can be told is in :mod:`convit.cli.options`, apart from the command itself, whose libraries take seconds
to import: help and a mistyped option are answered before.
"""

import errno
import importlib
import os
import signal
import sys
from collections.abc import Sequence

import convit_launcher
from convit.cli.options import parse
from convit.errors import InputError

DISK_FAULTS = {errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT, errno.EFBIG, errno.ENAMETOOLONG}
DISK_FAULTS |= {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}  # a place that is not there, or no such place


def run(command: str, arguments: Sequence[str]) -> int:
    """Runs one command; returns 0, 2 for bad input (one line on standard error), or 128 + a signal's number."""
    try:
        options = parse(importlib.import_module(f"convit.cli.options.{command}").Options, arguments, command=command)
        convit_launcher.complete_package()
        module = importlib.import_module(f"convit.cli.{command}")
        convit_launcher.raise_interrupts()
        status: int | None = module.main(options)
    except InputError as error:
        return _fail(command, str(error))
    except KeyboardInterrupt:
        return _fail(command, "interrupted", 128 + signal.SIGINT)
    except BrokenPipeError:  # the reader, such as head, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in DISK_FAULTS:
            raise
        where = f"{error.filename}: " if error.filename else ""
        return _fail(command, f"{where}{error.strerror}; expected a place with room that can be written to")
    return status or 0


def _fail(command: str, message: str, status: int = 2) -> int:
    print(f"convit {command}: {' '.join(message.split())}", file=sys.stderr)
    return status
