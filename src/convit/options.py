"""Options as a dataclass. A field has a type, a range and a default; the text under it is its help. The same field is
the option on the command line, the key in YAML and the keyword in Python, with the same checks.

Imports nothing heavy: help and errors about options are printed before PyTorch is loaded.
"""

import ast
import functools
import inspect
import itertools
import os
import re
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from convit.errors import InputError, brief, nearest

T = TypeVar("T", bound="Options")

_NOT_A_TEXT = re.compile(
    r"[-+]?[\d_]{1,20}(\.\d*)?|[-+]?[\d.]+[eE][-+]?\d+|true|false|yes|no|on|off|null", re.IGNORECASE
)
"""What is no text without quotes."""

_NO_ZERO = re.compile(r"[+-]?\.\d\S*")
_BOUNDLESS = 1e12
"""A bound of at least this size only excludes numbers that are not finite; messages do not mention it."""

Count = Annotated[int, Meta(ge=1, le=2**62)]
NotNegative = Annotated[int, Meta(ge=0, le=2**62)]
Part = Annotated[float, Meta(ge=0, le=1)]
"""A part of a whole, or a probability."""
Positive = Annotated[float, Meta(gt=0, le=1e12)]


@dataclass(frozen=True, slots=True)
class Arg:
    """How the command line writes an option, where that is not ``--name VALUE``."""

    metavar: str = ""
    positional: bool = False
    writes: Literal["", "file", "folder"] = ""
    """What is written to the path that it names: it is looked at before the work (:mod:`convit.cli.output`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Option:
    """One field of a dataclass of options."""

    name: str
    kind: Any
    """Its type, without None."""
    default: Any
    """MISSING where it has to be given."""
    text: str
    """What it is, in one line; in brackets at its end what is taken if it is not given."""
    group: str
    """First line of the docstring of the class that it is defined in."""
    arg: Arg

    @property
    def word(self) -> str:
        """As messages and the command line have it."""
        return self.name.replace("_", "-")

    @property
    def several(self) -> bool:
        """Whether its value is a tuple."""
        return typing.get_origin(_bare(self.kind)) is tuple

    @property
    def choices(self) -> tuple[Any, ...]:
        """The words that it takes, or those that each of its values takes; none where it takes others."""
        kind = _bare(self.kind)
        if typing.get_origin(kind) is tuple:
            kind = _bare(typing.get_args(kind)[0])
        return typing.get_args(kind) if typing.get_origin(kind) is Literal else ()

    def check(self, value: Any, *, words: bool = False) -> Any:
        """The value in the option's type.

        Args:
            value: any value; with ``words`` a text, or several, as somebody typed them.

        Raises:
            InputError: another type, or out of range.
        """
        if value is None and self.default is None:
            return None
        kind = _bare(self.kind)
        if self.several and isinstance(value, int | float | str):
            value = (value,)  # image_size=32, as --image-size 32
        try:
            if kind is Path:
                return _path(value)
            if self.arg.writes and isinstance(value, str) and value != "-":
                return str(_path(value))
            if self.several and typing.get_args(kind)[0] is Path and isinstance(value, list | tuple):
                return tuple(map(_path, value))
            return _converted(value, self.kind, words)
        except (msgspec.ValidationError, UnicodeEncodeError):  # the second for half a character
            as_python = not words and self._looks_right(value)
            several = isinstance(value, list | tuple) and not as_python
            got = brief(value) if as_python else " ".join(map(_word, value)) if several else _word(value)
            got = got if len(got) <= 80 else f"{got[:77]}..."
            near = nearest(got, map(str, self.choices))
            raise InputError(
                f"{self.word}: got {got or 'nothing'}, expected {expected(self.kind)}{near}{self._hint(value)}"
            ) from None

    def _looks_right(self, value: Any) -> bool:
        """Whether a value that is wrong would look right in a message: ``'1'`` for a number, ``[a]`` for a word."""
        kinds = [_bare(typing.get_args(_bare(self.kind))[0])] if self.several else [_bare(self.kind)]
        texts = [one for one in (value if isinstance(value, list | tuple) else [value]) if isinstance(one, str)]
        quoted = kinds[0] in (int, float, bool) and any(map(_NOT_A_TEXT.fullmatch, texts))
        return quoted or (isinstance(value, list | tuple) and not self.several)

    def _hint(self, value: Any) -> str:
        """Where a word is another one than people mean: a home that is not known, a date of YAML."""
        words = value if isinstance(value, list | tuple) else [value]
        home = next((word for word in words if str(word).startswith("~")), None)
        if home is not None and (self.arg.writes or "a path" in expected(self.kind)):
            return f" (no home folder is known for {Path(home).parts[0]}; ./{home} is a name that begins with ~)"
        named = type(value).__name__
        if value in (True, False) and isinstance(value, bool) and _bare(self.kind) in (str, Path):
            return " (YAML reads yes, no, on and off as true or false: put it in quotes)"
        return f" (YAML reads this as a {named}: put it in quotes)" if named in ("date", "datetime") else ""


class Options:
    """Base of every dataclass of options: refuses a value of a wrong type or out of its range, in one line."""

    def __post_init__(self) -> None:
        for option in options_of(type(self)):
            object.__setattr__(self, option.name, option.check(getattr(self, option.name)))

    def given(self) -> dict[str, Any]:
        """The options that are not as they are by default."""
        return {o.name: value for o in options_of(type(self)) if (value := getattr(self, o.name)) != o.default}

    def to_dict(self) -> dict[str, Any]:
        """All options as YAML and JSON know them: tuples as lists, paths as text."""
        return {option.name: _plain(getattr(self, option.name)) for option in options_of(type(self))}


def make(cls: type[T], values: Mapping[str, Any], *, words: bool = False) -> T:
    """Options from a mapping.

    Args:
        cls: a dataclass derived from :class:`Options`.
        values: by name, with ``_`` or ``-``; with ``words`` as texts that somebody typed.

    Raises:
        InputError: an unknown option (with the nearest), one that is missing, a wrong type, a value out of range.
    """
    out = checked(cls, values, words=words)
    for option in options_of(cls):
        if option.default is MISSING and out.get(option.name) in (None, ()):
            raise InputError(f"{option.word}: got none, expected {expected(option.kind)}")
    return cls(**out)


def checked(cls: type[Options], values: Mapping[str, Any], *, words: bool = False) -> dict[str, Any]:
    """Some of the options, in their types, by the names of their fields; otherwise as :func:`make`."""
    known = {option.name: option for option in options_of(cls)}
    out = {}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        if name not in known:
            raise unknown(str(key), known)
        if name in out:
            raise InputError(f"{known[name].word}: got it twice, with - and with _; expected it once")
        out[name] = known[name].check(value, words=words)
    return out


def unknown(word: str, known: Iterable[str]) -> InputError:
    """What to raise for an option that there is not."""
    plain = word.replace("_", "-")
    shown = plain if plain.isprintable() else ascii(plain)[1:-1]
    return InputError(f"unknown option {shown[:80]!r}{nearest(plain, [name.replace('_', '-') for name in known])}")


def options_of(cls: type) -> tuple[Option, ...]:
    """The options of a dataclass, in the order of its fields."""
    if cls not in _READ:
        _READ[cls] = tuple(_read(cls))
    return _READ[cls]


_READ: dict[type, tuple[Option, ...]] = {}


def _read(cls: type) -> Iterator[Option]:
    hints = typing.get_type_hints(cls, include_extras=True)
    home = {name: base for base in reversed(cls.__mro__) for name in inspect.get_annotations(base)}
    texts = {name: text for base in reversed(cls.__mro__) if base is not object for name, text in _texts(base).items()}
    for entry in fields(cls):
        kind, arg = hints[entry.name], Arg()
        if typing.get_origin(kind) is Annotated:
            arg = next((meta for meta in kind.__metadata__ if isinstance(meta, Arg)), arg)
            metas = tuple(meta for meta in kind.__metadata__ if not isinstance(meta, Arg))
            kind = Annotated[(kind.__origin__, *metas)] if metas else kind.__origin__
        if typing.get_origin(kind) in (types.UnionType, typing.Union):
            (kind,) = (part for part in typing.get_args(kind) if part is not types.NoneType)
        group = (home[entry.name].__doc__ or "").strip().splitlines()[0].removesuffix(".")
        text = texts.get(entry.name, "")
        yield Option(name=entry.name, kind=kind, default=entry.default, text=text, group=group, arg=arg)


def _texts(cls: type) -> dict[str, str]:
    """The text under each field of a class, in one line."""
    body = _classes(cls.__module__).get(cls.__qualname__.rpartition(".")[2], ast.Module([], [])).body
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


@functools.cache
def _classes(module: str) -> dict[str, ast.ClassDef]:
    """The classes of a module, as it has them in its source."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def expected(kind: Any) -> str:
    """A type and its range in words.

    >>> expected(Count), expected(Part), expected(Literal["a", "b"])
    ('a whole number of at least 1', 'a number from 0 to 1', 'a or b')
    """
    metas = kind.__metadata__ if typing.get_origin(kind) is Annotated else ()
    bare = _bare(kind)
    if typing.get_origin(bare) is Literal:
        words = [str(word) for word in typing.get_args(bare)]
        return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
    if typing.get_origin(bare) is tuple:
        ends = {end: getattr(meta, end) for meta in metas for end in ("min_length", "max_length")}
        low, high = ends.get("min_length"), ends.get("max_length")
        count = f"{low} values" if low and low == high else f"{low} to {high} values" if high else "one value or more"
        return f"{count}, each {expected(typing.get_args(bare)[0])}"
    names = {int: "a whole number", float: "a number", str: "a word", Path: "a path", bool: "true or false"}
    words = [names.get(bare, getattr(bare, "__name__", str(bare)))]
    both = ((end, getattr(meta, end)) for meta in metas for end in ("ge", "gt", "le", "lt"))
    bounds = {end: value for end, value in both if value is not None and abs(value) < _BOUNDLESS}
    if "ge" in bounds and "le" in bounds:
        words.append(f"from {bounds['ge']:g} to {bounds['le']:g}")
    else:
        spoken = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below"}
        words += [f"{spoken[end]} {value:g}" for end, value in bounds.items()]
    words += [f"that is a multiple of {meta.multiple_of}" for meta in metas if meta.multiple_of]
    return " ".join(words)


def _word(value: Any) -> str:
    """A value in a message: a text as it is, of anything else no more than a line."""
    try:
        text = str(value)
    except (ValueError, RecursionError):
        text = brief(value)
    return text if text.isprintable() else ascii(text)[1:-1]


def _path(value: Any) -> Path:
    """The path that a word is, with ``~`` for a home folder.

    Raises:
        msgspec.ValidationError: no word, or none that can name a file: an empty one, one with a NUL, half a character,
            a home that is not known.
    """
    try:
        if isinstance(value, str | Path) and str(value) and b"\0" not in os.fsencode(value):
            return Path(value).expanduser()
    except (UnicodeEncodeError, RuntimeError):
        pass
    raise msgspec.ValidationError


def _builtin(value: Any) -> Any:
    """NumPy's numbers as Python's, so that one may be given for the other."""
    if isinstance(value, list | tuple):
        return [_builtin(inner) for inner in value]
    if isinstance(value, bool | int | float):
        return value
    return int(value) if isinstance(value, Integral) else float(value) if isinstance(value, Real) else value


def _bare(kind: Any) -> Any:
    """A type without its range."""
    return kind.__origin__ if typing.get_origin(kind) is Annotated else kind


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def _converted(value: Any, kind: Any, words: bool) -> Any:
    """As :func:`msgspec.convert`; among words ``.5`` is 0.5 where a number is wanted."""
    try:
        return msgspec.convert(_builtin(value), kind, strict=not words)
    except msgspec.ValidationError:
        if not words:
            raise
        return msgspec.convert(_with_zero(value), kind, strict=False)


def _with_zero(word: Any) -> Any:
    """``.5`` as ``0.5``, also in a list; anything else as it is."""
    if isinstance(word, list | tuple):
        return [_with_zero(inner) for inner in word]
    return word.replace(".", "0.", 1) if isinstance(word, str) and _NO_ZERO.fullmatch(word) else word
