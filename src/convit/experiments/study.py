"""What an experiment is: which runs, and what is made of their results."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convit.experiments.cells import Cell, Result
from convit.experiments.settings import Settings
from convit.experiments.variants import Variant
from convit.figures import Figure


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What people look at."""

    tables: tuple[str, ...]
    """In Markdown."""
    figures: Mapping[str, Figure] = field(default_factory=dict)
    """By the name of their file, without its suffix."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """An experiment: one of the paper's, or a search of ours."""

    title: str
    axes: tuple[str, ...] = ()
    """Options of the grid that it has, besides models and seeds."""
    paper: Mapping[str, Any] | None
    """The published settings; None for an experiment that is not the paper's."""
    digits: Mapping[str, Any]
    """Settings with which it takes minutes on the digits; their axes are those for other data too."""
    rows: Mapping[str, Variant] = field(default_factory=dict)
    """What ``--rows`` chooses from."""
    base: str | None = None
    """The row that all others are compared with, if they are."""
    cells: Callable[[Settings], list[Cell]]
    report: Callable[[Settings, Sequence[Result], Path], Report]
    """From settings, results in the order of the cells, and the folder of the run folders."""


def row_cells(settings: Settings, *, rows: Mapping[str, Variant], test: bool = True) -> list[Cell]:
    """A run of every row, for every fraction, model and seed.

    Args:
        settings: which of the rows.
        rows: what they are.
        test: whether the runs read the test part.
    """
    return [
        settings.cell(model, row, rows[row], seed, fraction=fraction, test=test)
        for seed in settings.seeds
        for model in settings.models
        for fraction in settings.fractions
        for row in settings.rows
    ]


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown; the first column to the left, the others to the right.

    >>> print(markdown(["kept", "top-1"], [["10%", 93.5]]))
    | kept | top-1 |
    |:--|--:|
    | 10% | 93.5 |
    """
    rule = "|:--|" + "--:|" * (len(header) - 1)
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (header, *rows)]
    return "\n".join([lines[0], rule, *lines[1:]])


def per_model(settings: Settings, name: str) -> Callable[[str], str]:
    """Names of files, with the model's if there are several."""
    several = len(settings.models) > 1
    return lambda model: f"{name}-{model.removeprefix('convit_')}" if several else name


def headed(settings: Settings, model: str, table: str) -> str:
    """A table under its model's name if there are several."""
    return f"**{model}**\n\n{table}" if len(settings.models) > 1 else table


def percent(fraction: float) -> str:
    """``10%`` for 0.1."""
    return f"{100 * fraction:g}%"
