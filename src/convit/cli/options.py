"""From arguments to a dataclass of options, and one line for what does not fit."""

import contextlib
import io
import json
import re
import types
import typing
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import tyro

from convit.errors import InputError, nearest

T = TypeVar("T")

_STYLE = (
    tyro.conf.OmitArgPrefixes,
    tyro.conf.FlagCreatePairsOff,
    tyro.conf.HelptextFromCommentsOff,
    tyro.conf.PositionalRequiredArgs,
)


_REGISTRY = tyro.constructors.ConstructorRegistry()


@_REGISTRY.primitive_rule
def _open(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    """An option that may be left open, ``int | None``, is shown and read as an ``int``: nobody types None."""
    given = [kind for kind in typing.get_args(info.type) if kind is not types.NoneType]
    union = typing.get_origin(info.type) in (typing.Union, types.UnionType)
    if not union or len(given) != 1 or given[0] not in (int, float, str, Path):
        return None
    (kind,) = given
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar={int: "INT", float: "FLOAT", str: "STR", Path: "PATH"}[kind],
        instance_from_str=lambda words: kind(words[0]),
        is_instance=lambda value: value is None or isinstance(value, kind),
        str_from_instance=lambda value: [str(value)],
    )


def parse(cls: type[T], arguments: Sequence[str], *, command: str, description: str) -> T:
    """The options of ``convit COMMAND``; ``--help`` prints them and exits.

    Raises:
        InputError: an unknown option (with the nearest), a missing or a wrong value.
    """
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), _REGISTRY:
            options, unknown = tyro.cli(
                cls,
                args=_with_json_value(arguments),
                prog=f"convit {command}",
                description=description,
                return_unknown_args=True,
                config=_STYLE,
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise InputError(f"{_unboxed(errors.getvalue())}; see 'convit {command} --help'") from None
    if unknown:
        known = [f"--{name.replace('_', '-')}" for name in _names(cls)]
        raise InputError(
            f"unknown option or argument {unknown[0]!r}{nearest(unknown[0], known)}; see 'convit {command} --help'"
        )
    return options


def print_or_write_json(document: Any, target: str) -> None:
    """One JSON document to standard output for ``-``, else to the file."""
    text = json.dumps(document, indent=1, ensure_ascii=False)
    if target == "-":
        print(text)
    else:
        Path(target).write_text(text + "\n", encoding="utf-8")


def _names(cls: Any) -> list[str]:
    names, types_of = [], typing.get_type_hints(cls)
    for entry in fields(cls):
        kind = types_of[entry.name]
        names += _names(kind) if is_dataclass(kind) else [entry.name]
    return names


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
        (
            r"Error parsing (--\S+): no type matching (.+?) could be instantiated from \['?(.*?)'?\]\.",
            r"\1: got \3, expected \2",
        ),
        (
            r"Error parsing (--\S+): (?:invalid literal|could not convert)[^:]*: '?(.*?)'?(?: Argument| For|$)",
            r"\1: got \2, expected a number",
        ),
        (r"Error parsing \w+: (.*?)(?: Argument helptext| For full|$)", r"\1"),
        (
            r"Invalid choice invalid choice '(.*?)' for argument '(--\S+)'\. Expected one of \((.*?)\)",
            r"\2: got \1, expected one of \3",
        ),
        (r"Missing value for argument '(--\S+)'", r"\1: got no value, expected one"),
        (r"Missing from [^:]*: ([A-Z]\S*) (.*?) \(required\)", r"missing argument \1: \2"),
    ):
        if found := re.search(pattern, words):
            said = found.expand(line).replace("{None}|", "").replace(", 'None'", "")
            size = said.startswith("--image-size")
            numbers = "one or two numbers, such as 224 or 224 160" if size else "one or more whole numbers"
            return said.replace("{[INT [INT ...]]}", numbers)
    return words or "the options do not fit"
