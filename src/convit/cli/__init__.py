"""The commands, a thin module each, and how their faults become one line and an exit status."""

import errno
import importlib
import os
import signal
import sys
from collections.abc import Sequence

from convit.errors import InputError

DISK_FAULTS = {errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT, errno.EFBIG, errno.ENAMETOOLONG}
DISK_FAULTS |= {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}  # a place that is not there, or no such place


def run(command: str, arguments: Sequence[str]) -> int:
    """Runs one command; returns 0, 2 for bad input (one line on standard error), or 128 + a signal's number."""
    try:
        module = importlib.import_module(f"convit.cli.{command}")
        status: int | None = module.main(arguments)
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
