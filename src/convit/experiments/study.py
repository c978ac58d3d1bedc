"""What an experiment is: which variants of a run, and what is made of their results."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from convit.events import Said
from convit.experiments.results import Cell, Label, Result
from convit.experiments.settings import Settings, SharedOptions
from convit.figures import Figure
from convit.options import make, options_of
from convit.training.options import Asked

Tell = Callable[[Said], None]


@dataclass(frozen=True, slots=True)
class Variant:
    """A run that differs from that of ConViT in one thing, or in few.

    All variants of a model have its width, heads, depth and position embeddings but for what they say, and are trained
    by the same recipe on the same images in the same order, with the same augmentation, mixup and number of steps.
    """

    key: str
    """What names and labels call it."""
    title: str
    """What tables and pictures call it."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Options of :class:`convit.training.options.Asked`."""
    labels: Mapping[str, Label] = field(default_factory=dict)
    """What else distinguishes it; part of its run's name too."""
    rival: str | None = None
    """The name of what is trained in place of the ConViT, if it is none."""


CONVIT = Variant("convit", "ConViT")
TWIN = Variant("twin", "plain attention", {"local_up_to_layer": 0})
"""With plain attention in every block: DeiT of the same width and heads."""


class Report(NamedTuple):
    """What people look at."""

    tables: list[str]
    """In Markdown."""
    figures: dict[str, Figure] = {}  # noqa: RUF012 (nobody changes it)
    """By the name of their file, without its suffix."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """An experiment: one of the paper's, or a search of ours."""

    title: str
    axes: tuple[str, ...] = ()
    """Options of the grid that it has, besides models, seeds and epochs."""
    paper: Mapping[str, Any] | None
    """The published settings; None for an experiment that is not the paper's."""
    digits: Mapping[str, Any]
    """Settings with which it takes minutes on the digits; their axes are those for other data too."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Options that all of its runs have."""
    rows: Mapping[str, Variant] = field(default_factory=dict)
    """What ``--rows`` chooses from."""
    base: str | None = None
    """The row that all others are compared with, if they are."""
    layers_from: int = 0
    """The lowest of ``--layers``."""
    variants: Callable[[Settings], Sequence[Variant]]
    """What is compared; each is made of every model, of every fraction of the data and with every seed."""
    prepare: Callable[[Settings, Path, Tell], Callable[[Cell], Cell]] = lambda settings, folder, tell: lambda cell: cell
    """What has to be known before the runs: from settings and folder to a function that completes each cell."""
    threads: int | None = None
    """Of PyTorch, in each run; None for all there are, divided among the runs that are made at once."""
    measure: Callable[[Settings, Result], Mapping[str, float]] = lambda settings, result: {}
    """What is measured of the best model besides its accuracy, in percent; kept in the run folder."""
    report: Callable[[Settings, Sequence[Result]], Report]
    """From settings and results in the order of the cells; of one model, unless it shows them ``together``."""
    together: bool = False
    """Whether all models stand in one table."""

    def cells(self, settings: Settings) -> list[Cell]:
        """Every run of the grid."""
        return [
            Cell(
                name="-".join([model.removeprefix("convit_"), variant.key, *_words(fraction, variant), f"seed_{seed}"]),
                labels={"model": model, "variant": variant.key, "fraction": fraction, **variant.labels},
                asked=asked(settings, model, seed, fraction, {**self.fixed, **variant.changes}),
                rival=variant.rival,
            )
            for seed in settings.seeds
            for model in settings.models
            for fraction in settings.fractions
            for variant in self.variants(settings)
        ]


def asked(
    settings: Settings, model: str | None, seed: int, fraction: float = 1.0, changes: Mapping[str, Any] | None = None
) -> Asked:
    """The options of one run, which is shown as many images whatever fraction it learns from."""
    options = {option.name: getattr(settings, option.name) for option in options_of(SharedOptions)}
    options |= {"data": settings.data, "model": model, "seed": seed}
    options["fraction"] = None if fraction == 1 else fraction
    options["epochs"] = settings.epochs and max(1, round(settings.epochs / fraction))
    return make(Asked, options | dict(changes or {}))


def _words(fraction: float, variant: Variant) -> list[str]:
    """What a run's name says besides its variant."""
    said = {"fraction": fraction, **variant.labels}
    usual = (("fraction", 1), ("rate", 1))
    return [f"{name}_{value:g}" for name, value in said.items() if (name, value) not in usual]
