"""Fields of a dataclass of options: their ranges, and the way to plain values for YAML and back."""

import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from convit.errors import InputError, nearest


def to_plain(value: Any) -> Any:
    """Dictionaries with tuples as lists and paths as text, all the way down."""
    if isinstance(value, dict):
        return {key: to_plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


def from_plain(cls: type, values: object, where: str) -> Any:
    """A dataclass from nested plain values; unknown keys and wrong types are refused."""
    if not isinstance(values, Mapping):
        raise InputError(f"{where}: got {values!r}, expected keys and values")
    hints = typing.get_type_hints(cls)
    known = {entry.name for entry in fields(cls)}
    for key in values:
        if key not in known:
            raise InputError(f"{where}: unknown key {key!r}{nearest(str(key), known)}")
    for entry in fields(cls):
        if entry.name not in values and entry.default is MISSING and entry.default_factory is MISSING:
            raise InputError(f"{where}: no key {entry.name!r}, expected one")
    return cls(**{key: _as(hints[key], value, f"{where}.{key}") for key, value in values.items()})


def _as(hint: Any, value: Any, where: str) -> Any:
    """``value`` as the type ``hint`` says."""
    if is_dataclass(hint) and isinstance(hint, type):
        return from_plain(hint, value, where)
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in options:
            return None
        (hint,) = (option for option in options if option is not type(None))
        return _as(hint, value, where)
    if origin is Literal and value in options:
        return value
    if origin is tuple and isinstance(value, list) and all(type(item) is int for item in value):
        return tuple(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and type(value) is int:
        return float(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    raise InputError(f"{where}: got {value!r}, expected {getattr(hint, '__name__', hint)}")


def given(options: object, names: Iterable[str]) -> list[str]:
    """Those of the options that are set, as they are written on the command line."""
    values = {name: getattr(options, name) for name in names}
    return [name.replace("_", "-") for name, value in values.items() if value is not None and value is not False]


def between(name: str, value: float | None, low: float, high: float) -> None:
    """Refuses a number outside ``low`` to ``high``; an open option (None) passes, as in the checks below."""
    if value is not None and not low <= value <= high:
        raise InputError(f"{name}: got {value}, expected {low:g} to {high:g}")


def positive(name: str, value: float | None) -> None:
    """Refuses 0, what is below it, and what is no finite number."""
    if value is not None and not 0 < value < float("inf"):
        raise InputError(f"{name}: got {value}, expected a positive number")


def at_least(name: str, value: int | None, low: int) -> None:
    """Refuses a number below ``low``."""
    if value is not None and value < low:
        raise InputError(f"{name}: got {value}, expected at least {low}")
