"""From words to values: every form in which an option can be typed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest

from convit import InputError
from convit.cli.options import Command, JsonTarget
from convit.cli.words import read
from convit.options import Arg, Count


@dataclass(frozen=True, kw_only=True)
class Options(Command):
    """Do something."""

    place: Annotated[str, Arg("PLACE", positional=True)]
    more: Annotated[tuple[Path, ...], Arg("MORE", positional=True)] = ()
    image_size: tuple[Count, ...] = ()
    lr: float | None = None
    flip: bool | None = None
    skip_bad: bool = False
    against: tuple[Literal["twin", "timm"], ...] = ("twin", "timm")
    name: str | None = None
    json: JsonTarget = None


def made(*words: str) -> Options:
    return Options.of_words(read(Options, words))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("x", {}),
        ("--place x", {}),
        ("x --image-size 8 16", {"image_size": (8, 16)}),
        ("--image_size 8 16 --lr=2 x", {"image_size": (8, 16), "lr": 2.0}),
        ("--image-size=8 x", {"image_size": (8,)}),
        ("x --lr -1", {"lr": -1.0}),
        ("x --lr=-1e-3", {"lr": -1e-3}),
        ("x --lr .5", {"lr": 0.5}),
        ("x --lr -.5e-2", {"lr": -0.005}),
        ("x --name .5", {"name": ".5"}),
        ("x --lr -1e-3 --skip-bad", {"lr": -1e-3, "skip_bad": True}),
        ("x --flip", {"flip": True}),
        ("x --no-flip", {"flip": False}),
        ("x --flip --no_flip --skip_bad a b", {"flip": False, "skip_bad": True, "more": (Path("a"), Path("b"))}),
        ("x --skip-bad --no-skip-bad a", {"more": (Path("a"),)}),
        ("x --lr 1 --lr 2", {"lr": 2.0}),
        ("x --against", {"against": ()}),
        ("x --name=", {"name": ""}),
        ("x --name=a=b", {"name": "a=b"}),
        ("--name n x -- -y --z", {"name": "n", "more": (Path("-y"), Path("--z"))}),
        ("--json x", {"json": "-"}),
        ("x --json", {"json": "-"}),
        ("x --json a.json b", {"json": "a.json", "more": (Path("b"),)}),
        ("x --json - b", {"json": "-", "more": (Path("b"),)}),
        ("x --json=a.json", {"json": "a.json"}),
    ],
)
def test_forms(words: str, expected: dict[str, object]) -> None:
    assert made(*words.split()) == Options(place="x", **expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("x --image-siez 8", "unknown option 'image-siez'; did you mean 'image-size'?"),
        ("x --image 8", "unknown option 'image'; did you mean 'image-size'?"),  # nothing is abbreviated
        ("x --no-lr", "unknown option 'no-lr'"),
        ("x -s", "unknown option 's'"),
        ("x --lr", "lr: got nothing, expected a number"),
        ("x --lr --skip-bad", "lr: got nothing, expected a number"),
        ("x --name", "name: got nothing, expected a word"),
        ("x --image-size", "image-size: got nothing, expected one value or more, each a whole number of at least 1"),
        ("x --image-size 8 0", "image-size: got 8 0, expected one value or more, each a whole number of at least 1"),
        ("--image-size 8 16 x", "image-size: got 8 16 x, expected"),  # the place is taken for a size
        ("x --skip-bad=yes", "skip-bad: got yes, expected --skip-bad alone"),
        ("--skip-bad", "place: got none, expected a word"),
        ("x --against twin tim", "against: got twin tim, expected one value or more, each twin or timm"),
    ],
)
def test_mistakes(words: str, line: str) -> None:
    with pytest.raises(InputError) as caught:
        made(*words.split())
    assert str(caught.value).startswith(line)


def test_more_words_than_places() -> None:
    @dataclass(frozen=True, kw_only=True)
    class One(Command):
        """Do something."""

        place: Annotated[str, Arg("PLACE", positional=True)]

    with pytest.raises(InputError, match="got 'b' as one too many, expected PLACE"):
        read(One, ["a", "b"])


@dataclass(frozen=True, kw_only=True)
class Several(Command):
    """Compare runs on data."""

    run: Annotated[tuple[Path, ...], Arg("RUN", positional=True)]
    data: Annotated[str, Arg("DATA", positional=True)]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a", "x"], {"run": ["a"], "data": "x"}),
        (["a", "b", "x"], {"run": ["a", "b"], "data": "x"}),
        (["a", "b", "--data", "x"], {"run": ["a", "b"], "data": "x"}),
        (["a"], {"run": ["a"]}),
        ([], {}),
    ],
)
def test_several_leave_a_word_for_the_place_after_them(words: list[str], expected: dict[str, object]) -> None:
    assert read(Several, words) == expected
