"""From arguments to a dataclass of options, and one line for what does not fit."""

import contextlib
import io
import json
import re
import typing
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from convit.cli.rules import REGISTRY
from convit.errors import InputError, nearest

T = TypeVar("T")
JsonTarget = Annotated[str | None, tyro.conf.arg(metavar="[FILE]")]
"""The value of ``--json``, for :func:`print_or_write_json`."""

_STYLE = (
    tyro.conf.OmitArgPrefixes,
    tyro.conf.FlagCreatePairsOff,
    tyro.conf.PositionalRequiredArgs,
)


def parse(cls: type[T], arguments: Sequence[str], *, command: str) -> T:
    """The options of ``convit COMMAND``; ``--help`` prints them, under the docstring of ``cls``, and exits.

    Raises:
        InputError: an unknown option (with the nearest), a missing or a wrong value.
    """
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), REGISTRY:
            options, unknown = tyro.cli(
                cls,
                args=_with_json_value(arguments),
                prog=f"convit {command}",
                return_unknown_args=True,
                config=_STYLE,
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        said = _unboxed(errors.getvalue())
        unknown = [word for word in arguments if word.startswith("--") and _name(word) not in _names(cls)]
    else:
        if not unknown:
            return options
    if unknown:  # rather than the argument that tyro may miss where an option is misspelt
        said = f"unknown option or argument {unknown[0]!r}{nearest(unknown[0], _names(cls))}"
    raise InputError(f"{said}; see 'convit {command} --help'")


def print_or_write_json(document: Any, target: str) -> None:
    """One JSON document to standard output for ``-``, else to the file."""
    text = json.dumps(document, indent=1, ensure_ascii=False)
    if target == "-":
        print(text)
    else:
        Path(target).write_text(text + "\n", encoding="utf-8")


def _names(cls: Any) -> list[str]:
    """The options as they are typed."""
    names, types_of = [], typing.get_type_hints(cls)
    for entry in fields(cls):
        kind = types_of[entry.name]
        names += _names(kind) if is_dataclass(kind) else [_name(f"--{entry.name}")]
    return names


def _name(word: str) -> str:
    """``--batch-size`` of ``--batch_size=8``."""
    return word.split("=")[0].replace("_", "-")


def _with_json_value(arguments: Sequence[str]) -> list[str]:
    """``--json`` alone means standard output; only a name that ends in ``.json`` (or ``-``) is its file."""
    given = list(arguments)
    out = []
    for i, argument in enumerate(given):
        out.append(argument)
        following = given[i + 1] if i + 1 < len(given) else ""
        if argument == "--json" and not (following.endswith(".json") or following == "-"):
            out.append("-")
    return out


def _unboxed(text: str) -> str:
    """What a message that tyro draws in a box says, on one line and without its title and its footer."""
    words = " ".join(re.sub(r"[\u2500-\u257f]|\x1b\[[0-9;]*m|-{5,}", " ", text).split())
    for pattern, line in (
        (r"Error parsing (--\S+): (.*?)(?: Argument helptext| For full|$)", r"\1: \2"),
        (r"Error parsing [\w.]+: (.*?)(?: Argument helptext| For full|$)", r"\1"),
        (
            r"Invalid choice invalid choice '(.*?)' for argument '(\S+)'\. Expected one of \((.*?)\)",
            r"\2: got \1, expected one of \3",
        ),
        (r"Missing value for argument '(--\S+)'", r"\1: got no value, expected one"),
        (r"Missing value for argument '(?:\w+\.)*(\w+)'", r"\1: got none, expected one"),
        (r"Missing from [^:]*: ([A-Z]\S*) (.*?)\.? \(required\)", r"missing argument \1: \2"),
    ):
        if found := re.search(pattern, words):
            return found.expand(line)
    return words or "the options do not fit"
