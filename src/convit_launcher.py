"""The ``convit`` command until its libraries are loaded. Outside the package, which takes seconds to import: help,
version, a misspelt command and a mistyped option are answered at once, and Ctrl-C ends it without a traceback."""

import importlib.util
import os
import signal
import sys
from types import FrameType

COMMANDS = {
    "train": "train a classifier on your images; writes a run folder",
    "evaluate": "accuracy, precision, recall and confusion matrix of a run on labelled images",
    "predict": "classes and probabilities of images, by a run or an exported file",
    "inspect": "what every head looks at: a page to point at, and plots",
    "experiment": "the paper's tables and figures on your data, resumable",
    "export": "a run as one file to deploy: ONNX, or PyTorch's exported program",
    "bench": "speed and memory beside plain attention and timm, or of an exported file",
    "models": "the models: parameters, FLOPs, input size, accuracy in the paper",
}

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


def main() -> int:
    """Runs the command line; returns the exit status."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else whoever started this wants none
        signal.signal(signal.SIGINT, _stop)
    try:
        return _answer(sys.argv[1:])
    finally:
        raise_interrupts()


def raise_interrupts() -> None:
    """Ctrl-C is a KeyboardInterrupt again, once a command can tidy up after one."""
    if signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def complete_package() -> None:
    """Runs the ``__init__`` of the package, if this command has put it off until its options were read."""
    package = sys.modules["convit"]
    spec = package.__spec__
    if not hasattr(package, "__all__") and spec is not None and spec.loader is not None:
        spec.loader.exec_module(package)


def _stop(signum: int, frame: FrameType | None) -> None:
    """Ends the process: an exception in the middle of an import comes out as whatever that library makes of it."""
    os.write(2, f"{' '.join(['convit', *sys.argv[1:2]])}: interrupted\n".encode())
    os._exit(128 + signum)


def _answer(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if arguments[0] == "--version":
        import importlib.metadata

        print(f"convit {importlib.metadata.version('convit')}")
        return 0
    command, *rest = arguments
    if command not in COMMANDS:
        import difflib

        close = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        print(f"convit: unknown command {command!r}, expected one of {', '.join(COMMANDS)}{hint}", file=sys.stderr)
        return 2
    if command == "predict" and any(argument.lower().endswith(".onnx") for argument in rest):
        import convit_onnx

        if any(map(convit_onnx.is_onnx, rest)):  # needs neither PyTorch nor the seconds that it takes
            raise_interrupts()
            return convit_onnx.main(rest)
    _put_off_package()
    from convit.cli import run

    return run(command, rest)


def _put_off_package() -> None:
    """Lets modules of the package be imported without its ``__init__``, which imports PyTorch for the public names."""
    if "convit" not in sys.modules and (spec := importlib.util.find_spec("convit")):  # finds it, and does not run it
        sys.modules["convit"] = importlib.util.module_from_spec(spec)


if __name__ == "__main__":
    from convit_launcher import main  # the module that the package imports, in place of a second one

    sys.exit(main())
