"""The ``convit`` command until its libraries are loaded: help, version and a mistake in the words are answered at once,
and Ctrl-C ends it without a traceback."""

import importlib
import io
import os
import signal
import sys
from contextlib import suppress
from types import FrameType, ModuleType
from typing import NoReturn

COMMANDS = {
    "train": "train a classifier on your images; writes a run folder",
    "evaluate": "accuracy, precision, recall and confusion matrix of a run on labelled images",
    "predict": "classes and probabilities of images, by a run or an exported file",
    "check": "faults in labelled images: unreadable, repeated, leaking into the test set, odd",
    "inspect": "what every head looks at: a page to point at, and plots",
    "forecast": "how much more images would give, from trainings on a part of them",
    "experiment": "the paper's tables and figures on your data, resumable",
    "export": "a run as one file to deploy: ONNX, PyTorch, or a web page",
    "bench": "speed and memory beside plain attention and timm, or of an exported file",
    "models": "the models: parameters, FLOPs, input size, accuracy in the paper",
}

SPIN_VARIABLE, SPIN_COUNT = "GOMP_SPINCOUNT", "30000"
"""How often a thread of PyTorch looks whether the others are ready, before it lets other programs run: GNU's OpenMP
reads it, and has 300,000 by default. On two cores beside four busy programs a training step of ``mini`` on two threads
takes 1.3 s with it and 4.9 to 7.9 s without; where nothing else runs, up to 4% more (``nano``)."""

HELP = f"""usage: convit COMMAND ...

ConViT: vision transformers that start out as convolutions, for small image sets.

commands:
{chr(10).join(f"  {name:10} {text}" for name, text in COMMANDS.items())}

  convit COMMAND --help   the options of a command
  convit --version        the version

example, without any data of your own:
  convit train digits --out runs/digits
  convit evaluate runs/digits digits
"""


def program() -> NoReturn:
    """What a shell starts: :func:`main`, and to the end of the process Ctrl-C shows no traceback.

    Before that it sets how PyTorch's threads wait, which is read when PyTorch is loaded.
    """
    if not {"OMP_WAIT_POLICY", SPIN_VARIABLE} & os.environ.keys():
        os.environ[SPIN_VARIABLE] = SPIN_COUNT
    status = main()
    # What a closed or full output did not take is forgotten: Python would try once more when it ends, and end with a
    # status of its own, 120.
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda signum, frame: os._exit(status))
    sys.exit(status)


def end_at_interrupts() -> None:
    """Until a command can tidy up, Ctrl-C ends the process; not where whoever started it wants none."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)


def main() -> int:
    """Runs the command line; returns the exit status."""
    end_at_interrupts()
    for name, mode in {"stdin": "r", "stdout": "w", "stderr": "w"}.items():
        if getattr(sys, name) is None:  # closed by whoever started this
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # letters that a terminal lacks are shown by number
            stream.reconfigure(errors="backslashreplace")
    try:
        return _answer(sys.argv[1:])
    except KeyboardInterrupt:  # another one, while the first was answered
        return 128 + signal.SIGINT
    finally:
        raise_interrupts()


def raise_interrupts() -> None:
    """Ctrl-C is a KeyboardInterrupt again, once a command can tidy up after one."""
    if signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _stop(signum: int, frame: FrameType | None) -> None:
    """Ends the process: an exception in the middle of an import comes out as whatever that library makes of it."""
    os.write(
        2, f"{' '.join(['convit', *(word for word in sys.argv[1:2] if word in COMMANDS)])}: interrupted\n".encode()
    )
    os._exit(128 + signum)


def _answer(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        return _print(HELP)
    if arguments[0] == "--version":
        import importlib.metadata

        return _print(f"convit {importlib.metadata.version('convit')}\n")
    command, *rest = arguments
    if command not in COMMANDS:
        from convit.errors import nearest

        expected = f"expected one of {', '.join(COMMANDS)}"
        return _refuse(f"unknown command {command!r}, {expected}{nearest(command, COMMANDS)}")
    from convit.cli import run

    try:
        return run(command, rest, _load)
    except ModuleNotFoundError as error:
        if (error.name or "convit").startswith("convit"):
            raise
        return _refuse(
            f"{command}: {error.name} is not installed; expected all that convit is installed with (without PyTorch "
            "'convit predict MODEL.onnx' works alone)"
        )


def _print(text: str) -> int:
    """Prints a text; returns the exit status, which is 2 where it has no room."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as head, has had enough
        pass
    except OSError as error:
        return _refuse(f"{error.strerror}; expected an output that can be written to")
    return 0


def _refuse(message: str) -> int:
    with suppress(OSError):  # nobody reads it: the status says it
        print(f"convit: {message}", file=sys.stderr, flush=True)
    return 2


def _load(*names: str) -> ModuleType:
    """Imports modules and gives the last one, the command's; from then on Ctrl-C is the command's to hear."""
    *_, module = map(importlib.import_module, names)
    raise_interrupts()
    return module


if __name__ == "__main__":
    from convit_launcher import program  # the module that the package imports, in place of a second one

    program()
