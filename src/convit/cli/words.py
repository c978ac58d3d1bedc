"""From the words of a command line to a dataclass of options."""

import argparse
from collections.abc import Container, Sequence
from typing import Any, NoReturn

from convit.errors import InputError
from convit.options import expected, options_of, unknown


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(message)


def read(cls: type, words: Sequence[str]) -> dict[str, Any]:
    """What was typed of each option of a dataclass, for :func:`convit.options.make` with ``words=True``.

    An option is ``--name VALUE`` or ``--name=VALUE``, with dashes or underscores; one of several values takes the words
    after it; a switch is ``--name`` or ``--no-name``. ``--json`` takes a word that ends in ``.json``, or ``-``, and
    means ``-`` without one. Of two the last counts. Other words, and all after ``--``, go to the places of the class; a
    place of several leaves a word for each one after it.

    >>> from convit.cli.options.predict import PredictCommand
    >>> read(PredictCommand, ["run", "--top_k=3", "a.png", "--no-skip-bad", "b.png"])
    {'top_k': '3', 'skip_bad': False, 'run': 'run', 'images': ['a.png', 'b.png']}

    Raises:
        InputError: an unknown option, with the nearest; more arguments than there are places.
    """
    options = options_of(cls)
    switches = {f"--{no}{option.word}" for option in options if option.kind is bool for no in ("", "no-")}
    parser = _Parser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for option in options:
        if option.kind is bool:
            parser.add_argument(f"--{option.word}", dest=option.name, action=argparse.BooleanOptionalAction)
        elif option.several:
            parser.add_argument(f"--{option.word}", dest=option.name, nargs="*")
        else:  # one, or by argparse none: then () fails the check of the value, which says what is expected
            parser.add_argument(f"--{option.word}", dest=option.name, nargs="?", const=())
    end = words.index("--") if "--" in words else len(words)
    found, rest = parser.parse_known_args(_as_argparse_reads(words[:end], switches))
    for word in rest:
        if word.startswith("-") and word != "-":
            raise unknown(word.lstrip("-").partition("=")[0], [option.name for option in options])
    values, rest = vars(found), [*rest, *words[end + 1 :]]
    for i, option in enumerate(options):
        if values.get(option.name) == [] and option.default in ((), None):
            raise InputError(f"{option.word}: got nothing, expected {expected(option.kind)}")
        if option.arg.positional and option.name not in values and rest:
            behind = sum(other.arg.positional and other.name not in values for other in options[i + 1 :])
            end = max(1, len(rest) - behind) if option.several else 1  # a word is left for each place behind
            values[option.name], rest = rest[:end] if option.several else rest[0], rest[end:]
    if rest:
        places = " ".join(option.arg.metavar for option in options if option.arg.positional) or "none"
        raise InputError(f"arguments: got {rest[0]!r} as one too many, expected {places}")
    return values


def _as_argparse_reads(words: Sequence[str], switches: Container[str]) -> list[str]:
    """Names with dashes; a number below 0 joined to its option, or it would pass for one; a file with every --json."""
    out: list[str] = []
    for word, following in zip(words, (*words[1:], ""), strict=False):
        name, equals, value = word.partition("=")
        if name.startswith("--"):
            name = name.replace("_", "-")
            word = f"{name}{equals}{value}"
        if name in switches and equals:
            raise InputError(f"{name[2:]}: got {value or 'nothing'}, expected {name} alone")
        if word == "--json" and following != "-" and not following.endswith(".json"):
            word = "--json=-"
        before = out[-1] if out else ""
        if _is_below_zero(word) and before.startswith("--") and "=" not in before and before not in switches:
            out[-1] = f"{before}={word}"
        else:
            out.append(word)
    return out


def _is_below_zero(word: str) -> bool:
    try:
        return word.startswith("-") and float(word) <= 0
    except ValueError:
        return False
