"""The one error that users see: the given value, the expected one, and the nearest valid one, each in words."""

import difflib
import re
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any


class InputError(ValueError):
    """An input of the user cannot be used; the message is one line that says what to do.

    Library functions raise it like any ``ValueError``; the command line prints its message and exits with status 2.
    """


def one_line(error: BaseException, most: int = 200) -> str:
    r"""What an error of a library says, on one line of at most so many letters; its type if it says nothing.

    >>> one_line(OSError("no\n  space"), 5), one_line(KeyError())
    ('no sp', 'KeyError')
    """
    return " ".join(str(error).split())[:most] or type(error).__name__


def brief(value: object, most: int = 80) -> str:
    """Any value on one line of at most so many letters, as Python writes it.

    >>> brief("a\\n"), brief([1] * 99, 12), brief(10**5000)
    ("'a\\\\n'", '[1, 1, 1,...', 'an int of too many digits')
    """
    try:
        text = repr(value)
    except RecursionError:
        text = f"a {type(value).__name__}, nested too deeply"
    except ValueError:  # Python writes no more than some thousand digits
        text = "an int of too many digits" if isinstance(value, int) else f"a {type(value).__name__} of huge numbers"
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= most else f"{text[: most - 3]}..."


def listing(words: Iterable[str], most: int = 10) -> str:
    """Quoted words for a message, cut short when there are many.

    >>> listing(["cat", "dog"]), listing("abcd", most=2)
    ("'cat', 'dog'", "'a', 'b', ... (4 in all)")
    """
    known = list(words)
    shown = ", ".join(brief(word, 200) for word in known[:most])
    return shown if len(known) <= most else f"{shown}, ... ({len(known)} in all)"


def counted(number: int, one: str, many: str = "") -> str:
    """A number and what it counts, in the singular or the plural.

    >>> counted(1, "epoch"), counted(3, "epoch"), counted(2, "image is", "images are")
    ('1 epoch', '3 epochs', '2 images are')
    """
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name, or for a word of one; an empty string if nothing is close.

    >>> nearest("cifr10", ["cifar10", "digits"])
    "; did you mean 'cifar10'?"
    >>> nearest("nano", ["convit_tiny", "convit_nano_patch4_32", "convit_nano_patch8_64"])
    "; did you mean 'convit_nano_patch4_32' or 'convit_nano_patch8_64'?"
    >>> nearest("zebra", ["cifar10", "digits"])
    ''
    """
    names = list(known)
    longer = [name for name in names if word in re.split(r"[_-]", name)]
    matches = difflib.get_close_matches(word, names, n=1) or longer[:3]
    return f"; did you mean {' or '.join(map(repr, matches))}?" if matches else ""


def is_number(value: Any) -> bool:
    """Python's and NumPy's, but not True."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_whole(value: Any) -> bool:
    """The whole ones among them."""
    return isinstance(value, Integral) and not isinstance(value, bool)
