"""A dataclass of options: checked alike from words, YAML and Python."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from msgspec import Meta

from convit.errors import InputError
from convit.options import Arg, Count, Options, Part, expected, make, options_of
from convit.options_file import read_yaml, to_yaml
from convit.training.options import Asked


@dataclass(frozen=True, kw_only=True)
class Animals:
    """Animals: which ones."""

    name: Annotated[str | None, Arg("NAME", positional=True)] = None
    """What it is called [nothing]."""
    legs: Count | None = None
    """How many it stands on."""


@dataclass(frozen=True, kw_only=True)
class Zoo(Animals, Options):
    """Zoo: all of it."""

    sound: Literal["moo", "baa"] = "moo"
    """What it says."""
    tame: bool = False
    """Whether it may be
    touched."""
    weight: Annotated[float, Meta(gt=0, le=1e4)] = 1.0
    """In kg."""
    sides: Annotated[tuple[Count, ...], Meta(min_length=1, max_length=2)] | None = None
    """Of the cage."""
    place: Path | None = None
    """Where it lives."""


def test_a_field_says_all_about_an_option() -> None:
    found = {option.name: option for option in options_of(Zoo)}
    assert list(found) == ["name", "legs", "sound", "tame", "weight", "sides", "place"]
    assert (found["name"].text, found["name"].group) == ("What it is called [nothing].", "Animals: which ones")
    assert (found["tame"].text, found["tame"].group) == ("Whether it may be touched.", "Zoo: all of it")
    assert (found["name"].arg.positional, found["sides"].several, found["sound"].choices) == (
        True,
        True,
        ("moo", "baa"),
    )


GOOD: list[tuple[str, Any, list[str], Any]] = [
    ("name", "cow", ["cow"], "cow"),
    ("legs", 4, ["4"], 4),
    ("legs", None, [], None),
    ("tame", True, ["true"], True),
    ("weight", 3, ["3"], 3.0),
    ("weight", 1e-3, ["1e-3"], 0.001),
    ("sides", [3, 4], ["3", "4"], (3, 4)),
    ("sides", (3,), ["3"], (3,)),
    ("place", "a/b", ["a/b"], Path("a/b")),
    ("place", "1e3", ["1e3"], Path("1e3")),
    ("place", "~/a", ["~/a"], Path.home() / "a"),
    ("place", "a\udcff", [], Path("a\udcff")),  # a name that is no UTF-8
    ("legs", np.int64(4), [], 4),
    ("weight", np.float32(0.5), [], 0.5),
]


@pytest.mark.parametrize(("name", "value", "words", "got"), GOOD)
def test_values_in_their_types(name: str, value: Any, words: list[str], got: Any, tmp_path: Path) -> None:
    assert getattr(make(Zoo, {name: value}), name) == got
    assert type(getattr(Zoo(**{name: value}), name)) is type(got)
    if words:
        typed: Any = words if name == "sides" else words[0]
        assert getattr(make(Zoo, {name.replace("_", "-"): typed}, words=True), name) == got
    (tmp_path / "z.yaml").write_text(to_yaml(Zoo(**{name: value})))
    assert make(Zoo, read_yaml(tmp_path / "z.yaml")) == Zoo(**{name: value})


BAD: list[tuple[str, Any, str]] = [
    ("legs", 0, "legs: got 0, expected a whole number of at least 1"),
    ("legs", "four", "legs: got four, expected a whole number of at least 1"),
    ("legs", 4.0, "legs: got 4.0, expected a whole number of at least 1"),
    ("legs", True, "legs: got True, expected a whole number of at least 1"),
    ("sound", "mo", "sound: got mo, expected moo or baa; did you mean 'moo'?"),
    ("tame", "perhaps", "tame: got perhaps, expected true or false"),
    ("tame", None, "tame: got None, expected true or false"),
    ("weight", float("nan"), "weight: got nan, expected a number above 0"),
    ("weight", float("inf"), "weight: got inf, expected a number above 0"),
    ("sides", [], "sides: got nothing, expected 1 to 2 values, each a whole number of at least 1"),
    ("sides", [1, 2, 3], "sides: got 1 2 3, expected 1 to 2 values"),
    ("sides", [1, -2], "sides: got 1 -2, expected 1 to 2 values"),
    ("name", 5, "name: got 5, expected a word"),
    ("name", ["a"], "name: got ['a'], expected a word"),
    ("place", 5, "place: got 5, expected a path"),
    ("place", "", "place: got nothing, expected a path"),
    ("place", "a\0b", r"place: got a\x00b, expected a path"),
    ("place", "\ud800", r"place: got \ud800, expected a path"),
    ("place", "~nobody-of-this-name/a", "place: got ~nobody-of-this-name/a, expected a path"),
    ("plaice", "sea", "unknown option 'plaice'; did you mean 'place'?"),
]


@pytest.mark.parametrize(("name", "value", "message"), BAD)
def test_what_is_refused_and_in_which_words(name: str, value: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        make(Zoo, {name: value})
    assert str(caught.value).startswith(message)
    if name in {option.name for option in options_of(Zoo)}:
        with pytest.raises(InputError) as direct:
            Zoo(**{name: value})
        assert str(direct.value) == str(caught.value)


def test_a_name_in_both_spellings() -> None:
    with pytest.raises(InputError, match="batch-size: got it twice, with - and with _; expected it once"):
        make(Asked, {"batch-size": 2, "batch_size": 2})


def test_ranges_in_words() -> None:
    even = Annotated[int, Meta(ge=2, multiple_of=2)]
    assert expected(even) == "a whole number of at least 2 that is a multiple of 2"
    assert expected(Part) == "a number from 0 to 1"


def test_what_was_given() -> None:
    assert Zoo(legs=4, tame=False).given() == {"legs": 4}


def test_numbers_as_people_write_them(tmp_path: Path) -> None:
    (tmp_path / "z.yaml").write_text("weight: 1e-3\nlegs: 4\nsides: [3, 4]\nname: 'yes'\ntame: on\n")
    assert make(Zoo, read_yaml(tmp_path / "z.yaml")) == Zoo(weight=0.001, legs=4, sides=(3, 4), name="yes", tame=True)
