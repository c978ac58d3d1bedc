"""The ``convit`` command up to the choice of a sub-command. Outside the package, which takes seconds to import: help,
version and a misspelt command are answered at once."""

import difflib
import importlib.metadata
import sys

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
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if arguments[0] == "--version":
        print(f"convit {importlib.metadata.version('convit')}")
        return 0
    command, *rest = arguments
    if command not in COMMANDS:
        close = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        print(f"convit: unknown command {command!r}, expected one of {', '.join(COMMANDS)}{hint}", file=sys.stderr)
        return 2
    if command == "predict" and any(argument.lower().endswith(".onnx") for argument in rest):
        import convit_onnx

        if any(map(convit_onnx.is_onnx, rest)):  # needs neither PyTorch nor the seconds that it takes
            return convit_onnx.main(rest)
    try:
        from convit.cli import run
    except KeyboardInterrupt:  # while PyTorch is imported, which takes seconds
        return 130
    return run(command, rest)


if __name__ == "__main__":
    sys.exit(main())
