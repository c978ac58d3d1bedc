"""The help of a command: its options in two columns."""

import shutil
import textwrap
import typing
from dataclasses import MISSING
from pathlib import Path
from typing import Annotated, Any

from convit.options import Option, options_of

COLUMN = 24
"""Where the texts begin."""
WIDEST = 110


def page(command: str, cls: type, first: tuple[str, ...] = (), *, everything: bool = True) -> str:
    """The help of a command.

    Args:
        command: its name.
        cls: the dataclass of its options, whose docstring says what it does.
        first: names of the options that people use first; none where they are few.
        everything: show all, not only those.
    """
    width = min(shutil.get_terminal_size().columns, WIDEST)
    places = [option for option in options_of(cls) if option.arg.positional]
    named = [option for option in options_of(cls) if not option.arg.positional]
    lines = [" ".join(["usage: convit", command, *map(_place, places), "[options]"]), ""]
    lines += textwrap.wrap(" ".join((cls.__doc__ or "").split()), width)
    if places:
        lines += ["", *(line for option in places for line in _row(option.arg.metavar, _text(option), width))]
    groups: dict[str, list[Option]] = {}
    for option in named:
        groups.setdefault(option.group, []).append(option)
    if first and not everything:
        groups = {"options:": sorted((o for o in named if o.name in first), key=lambda o: first.index(o.name))}
    elif len(groups) == 1:
        groups = {"options:": named}
    for title, shown in groups.items():
        lines += ["", title, *(line for option in shown for line in _row(_how(option), _text(option), width))]
    if first and not everything:
        lines += ["", *_row("--help-all", f"all {len(named)} options, in groups", width)]
    return "\n".join([*lines, ""])


def _row(left: str, text: str, width: int) -> list[str]:
    """An option and what it is; beside it, or below it where it is too long."""
    head, indent = f"  {left}", " " * COLUMN
    lines = textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    if len(head) > COLUMN - 2 or not lines:
        return [head, *lines]
    return [head.ljust(COLUMN) + lines[0].lstrip(), *lines[1:]]


def _place(option: Option) -> str:
    word = option.arg.metavar + ("..." if option.several else "")
    return word if option.default is MISSING else f"[{word}]"


def _how(option: Option) -> str:
    """How it is typed."""
    if option.kind is bool:
        return f"--{option.word}" if option.default is False else f"--{option.word}, --no-{option.word}"
    kind, most = option.kind, 0
    while typing.get_origin(kind) in (Annotated, tuple):  # several values, in a range, each in a range
        most = next((meta.max_length or most for meta in getattr(kind, "__metadata__", ())), most)
        kind = typing.get_args(kind)[0]
    names: dict[Any, str] = {int: "N", float: "X", Path: "PATH", str: "WORD"}
    word = option.arg.metavar or "|".join(map(str, option.choices)) or names[kind]
    if option.several and not most:
        word += " ..."
    elif option.several and not option.arg.metavar:
        word += f" [{word}]" * (most - 1)
    return f"--{option.word} {word}"


def _text(option: Option) -> str:
    """What it is, and in brackets what is taken if it is not given."""
    text = option.text.removesuffix(".")
    if text.endswith("]") or any(option.default is nothing for nothing in (MISSING, None, False, ())):
        return text
    return f"{text} [{' '.join(map(str, option.default)) if option.several else option.default}]"
