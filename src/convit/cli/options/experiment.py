"""What ``convit experiment`` can be told."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from convit.cli.options import Command
from convit.errors import InputError
from convit.experiments.settings import Settings
from convit.options import Arg, Count


@dataclass(frozen=True, kw_only=True)
class CommandOptions:
    """Command: where it goes, and how."""

    out: Annotated[Path | None, Arg(writes="folder")] = None
    """The folder of runs, results, table and pictures; one that is there goes on [experiments/NAME-DATA]."""
    jobs: Count = 1
    """Runs at once; the CPU threads are divided among them."""
    overwrite: bool = False
    """Replace the experiment in --out."""


@dataclass(frozen=True, kw_only=True)
class ExperimentCommand(CommandOptions, Settings, Command):
    """An experiment of the paper on your data. Given again, the command goes on."""

    @classmethod
    def of_words(cls, given: Mapping[str, Any]) -> Self:
        """An option without a value is no option that is left open."""
        for name, value in given.items():
            if value in ([], ()):
                raise InputError(f"{name.replace('_', '-')}: got nothing, expected one value or more")
        return super().of_words(given)

    def look_ahead(self) -> None:
        """The data and the models."""
        from convit.data.sources import kind_of_source
        from convit.models.sizes import check_name

        kind_of_source(self.data)
        for name in self.models:
            check_name(name)
