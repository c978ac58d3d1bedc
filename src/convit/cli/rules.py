"""How tyro, which turns a dataclass into a command line, shows and reads the options of this one."""

import functools
import re
import types
import typing
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import docstring_parser
import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

REGISTRY = ConstructorRegistry()

_METAVARS: dict[Any, str] = {int: "INT", float: "FLOAT", str: "STR", Path: "PATH"}
_NUMBERS: dict[Any, str] = {int: "a whole number", float: "a number"}


@REGISTRY.struct_rule
def _options(info: StructTypeInfo) -> StructConstructorSpec | None:
    """A dataclass of options. The text under each ends with its default in [brackets], said once."""
    if not is_dataclass(info.type):
        return None
    hints = typing.get_type_hints(info.type, include_extras=True)
    specs = []
    for entry in fields(info.type):
        given = entry.default_factory() if entry.default_factory is not MISSING else entry.default
        text, default = _text_and_default(_texts(info.type).get(entry.name, ""), given)
        specs.append(
            StructFieldSpec(
                name=entry.name,
                type=Annotated[hints[entry.name], tyro.conf.arg(help_behavior_hint=default)],  # type: ignore[arg-type]
                default=tyro.MISSING if given is MISSING else given,
                helptext=text or None,  # tyro's own: of a group, its docstring
            )
        )
    return StructConstructorSpec(instantiate=info.type, fields=tuple(specs))


@functools.cache
def _texts(cls: type) -> dict[str, str]:
    """What stands under each option, in one line."""
    entries = docstring_parser.parse_from_object(cls).params
    return {entry.arg_name: " ".join((entry.description or "").split()) for entry in entries}


def _text_and_default(text: str, default: object) -> tuple[str, str]:
    """What an option is, and the value that it has when it is not given, as help shows them.

    >>> _text_and_default("Name of the model [by the size of the images].", None)
    ('Name of the model', '[by the size of the images]')
    >>> _text_and_default("Images at once.", 64)
    ('Images at once', '[64]')
    >>> _text_and_default("Leave out files that do not decode.", False)
    ('Leave out files that do not decode', '[off]')
    """
    if found := re.fullmatch(r"(.*) (\[.*\])\.", text):
        return found[1], found[2]
    if default is MISSING:
        return text, "(required)"
    if isinstance(default, float):
        default = f"{default:g}"
    shown = "none" if default in (None, ()) else "off" if default is False else default
    return text.removesuffix("."), f"[{shown}]"


@REGISTRY.primitive_rule
def _as_typed(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """How a value is shown and read: ``a|b`` for words, ``INT ...`` for several numbers, and ``int | None`` as ``int``:
    an option is left open by leaving it out, and nobody types None."""
    parts = typing.get_args(info.type)
    if info.type_origin in (types.UnionType, typing.Union) and len(parts) == 2 and parts[1] is types.NoneType:
        return _spec_of(parts[0], info)
    if info.type_origin is tuple and len(parts) == 2 and parts[1] is Ellipsis:
        return _several(_spec_of(parts[0], info))
    if info.type_origin is Literal or info.type is bool:
        words = {str(value): value for value in parts or (True, False)}
        return _one(words.__getitem__, "|".join(words), choices=tuple(words))
    if info.type in _METAVARS:
        return _one(_number(info.type) if info.type in _NUMBERS else info.type, _METAVARS[info.type])
    return None


def _spec_of(kind: Any, info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any]:
    spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(kind, info.markers))
    assert isinstance(spec, PrimitiveConstructorSpec), f"{kind} is no type of an option"
    return spec


def _one(
    read: Callable[[str], Any], metavar: str, choices: tuple[str, ...] | None = None
) -> PrimitiveConstructorSpec[Any]:
    """A value that is one word."""
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: read(words[0]),
        is_instance=lambda value: True,
        str_from_instance=lambda value: [str(value)],
        choices=choices,
    )


def _several(one: PrimitiveConstructorSpec[Any]) -> PrimitiveConstructorSpec[Any]:
    """A tuple of values that are one word each."""
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar=f"{one.metavar} ...",
        instance_from_str=lambda words: tuple(one.instance_from_str([word]) for word in words),
        is_instance=lambda value: True,
        str_from_instance=lambda values: [str(value) for value in values or ()],
        choices=one.choices,
    )


def _number(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def read(word: str) -> Any:
        try:
            return kind(word)
        except ValueError:
            raise ValueError(f"got {word}, expected {_NUMBERS[kind]}") from None

    return read
