"""What each command can be told, apart from the command itself, whose libraries take seconds to import: help and a
mistyped option are answered before.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from convit.choices import Views
from convit.errors import InputError
from convit.options import Arg, Option, Options, make, options_of

T = TypeVar("T", bound=Options)
JsonTarget = Annotated[str | None, Arg("[FILE]", writes="file")]
"""The value of ``--json``: a file, or ``-`` for standard output."""


@dataclass(frozen=True, kw_only=True)
class Command(Options):
    """Base of the options of a command; the docstring says what the command does."""

    first: ClassVar[tuple[str, ...]] = ()
    """Those that ``--help`` shows, and ``--help-all`` all of them; without any, both show all."""

    @classmethod
    def of_words(cls, given: Mapping[str, Any]) -> Self:
        """The options from what was typed of each.

        Raises:
            InputError: a value of a wrong type or out of range, or one that is missing.
        """
        return make(cls, given, words=True)

    @property
    def modules(self) -> tuple[str, ...]:
        """What is to be loaded before the command's own module, which imports what every call of it needs."""
        return ()

    def writes(self, option: Option) -> Literal["", "file", "folder"]:
        """What it writes to the place that an option names, if it does."""
        return option.arg.writes

    def look_ahead(self) -> None:
        """Checks, before the libraries of the command are loaded, that what it is to read is there.

        Raises:
            InputError: no such file, folder, data set or model.
        """

    def only(self, cls: type[T]) -> T:
        """Those of the options that another dataclass has."""
        return cls(**{option.name: getattr(self, option.name) for option in options_of(cls)})


def check_views(views: Views, reject: float | None, coverage: float | None) -> None:
    """Raises :class:`InputError` for thresholds, which were fitted on one view of each image, with the mean of two."""
    for option, value in (("reject", reject), ("coverage", coverage)):
        if value is not None and views != "one":
            raise InputError(
                f"{option}: got {value:g} with --views {views}, expected it without: its thresholds are those of one "
                "view"
            )
