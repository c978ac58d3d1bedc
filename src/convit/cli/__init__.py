"""The commands, a thin module each: they read words, call the library, and draw what it tells.

- ``options``: what each command can be told; ``words`` reads it, ``help`` shows it.
- ``screen``, ``tracking``: listeners of what a run tells; ``output`` is what comes out of a command.
- ``train``, ``evaluate``, ...: the commands.
"""

import errno
import importlib
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import ModuleType

from convit.cli import words
from convit.cli.help import page
from convit.cli.options import Command
from convit.cli.output import check_outputs
from convit.errors import InputError
from convit.files import DISK_FAULTS, printable

NO_ACCESS = (errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_LONGEST = 1500
"""Letters of a message that are shown."""


def run(command: str, arguments: Sequence[str], load: Callable[..., ModuleType]) -> int:
    """Runs one command; returns 0, 2 for bad input (one line on standard error), or 128 + a signal's number.

    Help, a mistake in the options and a path or a model that is not there are answered before PyTorch is loaded.

    Args:
        command: its name.
        arguments: the words after it.
        load: imports modules by their names and gives the last of them, the command's.
    """
    try:
        name = f"{command.capitalize()}Command"
        cls: type[Command] = getattr(importlib.import_module(f"convit.cli.options.{command}"), name)
        if asked := {"-h", "--help", "--help-all"}.intersection(arguments):
            print(page(command, cls, cls.first, everything="--help-all" in asked), end="")
            sys.stdout.flush()
            return 0
        options = cls.of_words(words.read(cls, arguments))
        check_outputs(options)
        options.look_ahead()
        module = load(*options.modules, f"convit.cli.{command}")
        with warnings.catch_warnings():
            # Of odd metadata, with a path of Pillow in place of the picture's. What cannot be read is an error.
            warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
            status: int | None = module.main(options)
        sys.stdout.flush()
    except InputError as error:
        return _fail(command, str(error))
    except KeyboardInterrupt:
        return _fail(command, "interrupted", 128 + signal.SIGINT)
    except BrokenPipeError:  # the reader, such as head, has had enough
        return 0
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            return _fail(command, f"{error.strerror}; expected fewer --workers, or a higher ulimit -n")
        if error.errno not in DISK_FAULTS:
            raise
        where = f"{error.filename}: " if error.filename else ""
        wanted = (
            "a place that can be read and written to"
            if error.errno in NO_ACCESS
            else "a place with room that can be written to"
        )
        return _fail(command, f"{where}{error.strerror}; expected {wanted}")
    return status or 0


def _fail(command: str, message: str, status: int = 2) -> int:
    text = printable(" ".join(message.split()))
    if len(text) > _LONGEST:  # a name out of somebody's file; the end says what was expected
        text = f"{text[: _LONGEST * 2 // 3]} ... {text[-_LONGEST // 3 :]}"
    with suppress(OSError):  # a full disk behind it: the status says it
        print(f"convit {command}: {text}", file=sys.stderr, flush=True)
    return status
