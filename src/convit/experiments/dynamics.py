"""How far the heads look, and what the gates do, over training (figures 5, 6, 13 and 14).

Non-locality (equation 8) is that of the real forward pass, of validation images, after each epoch.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convit.analysis.plots import gates_over_training, non_locality_over_training
from convit.experiments.cells import Cell, Result
from convit.experiments.settings import Settings
from convit.experiments.statistics import has, mean_of
from convit.experiments.study import Report, Study, headed, markdown, per_model
from convit.experiments.variants import VARIANTS

PAIR = ("convit", "twin")


def cells(settings: Settings) -> list[Cell]:
    """ConViT and its twin, noting how far every head looks."""
    return [
        settings.cell(model, key, VARIANTS[key], seed, record=True)
        for seed in settings.seeds
        for model in settings.models
        for key in PAIR
    ]


def report(settings: Settings, results: Sequence[Result], runs: Path) -> Report:
    """Figures 5 and 6, and the values after the first and the last epoch as a table."""
    tables, figures = [], {}
    for model in settings.models:
        own = {key: [r for r in results if has(r, model=model, variant=key)] for key in PAIR}
        tables.append(headed(settings, model, _table(own)))
        for key in PAIR:
            figure = non_locality_over_training(mean_history(own[key], "non_locality"))
            figure.axes[0].set_title(f"{VARIANTS[key].title}: how far each layer looks, mean of its heads", fontsize=10)
            figures[per_model(settings, f"non_locality_{key}")(model)] = figure
        figures[per_model(settings, "gates")(model)] = gates_over_training(mean_history(own["convit"], "gates"))
    return Report(tables=tuple(tables), figures=figures)


def mean_history(results: Sequence[Result], key: str) -> list[dict[str, Any]]:
    """A value of every head after each epoch, its mean over the seeds, as far as all of them went."""
    length = min(len(result.history) for result in results)
    values = np.array([[record[key] for record in result.history[:length]] for result in results]).mean(axis=0)
    return [{"epoch": epoch, key: heads.tolist()} for epoch, heads in enumerate(values, 1)]


def _table(results: dict[str, list[Result]]) -> str:
    """A row for each layer; means over heads, then over seeds."""

    def at(key: str, what: str, epoch: int, layer: int) -> str:
        heads = [result.history[epoch][what] for result in results[key]]
        if layer >= len(heads[0]):
            return ""
        mean = mean_of([float(np.mean(values[layer])) for values in heads])
        return f"{mean.mean:.2f}" + ("" if mean.error is None else f" ± {mean.error:.2f}")

    layers = len(results["convit"][0].history[0]["non_locality"])
    columns = [(key, "non_locality", epoch) for key in PAIR for epoch in (0, -1)]
    columns += [("convit", "gates", epoch) for epoch in (0, -1)]
    rows = [[str(layer + 1), *(at(*column, layer) for column in columns)] for layer in range(layers)]
    header = ["layer"]
    header += [f"{VARIANTS[key].title}: non-locality after {when} epoch" for key in PAIR for when in ("1", "the last")]
    return markdown([*header, "gate after 1 epoch", "gate after the last epoch"], rows)


STUDY = Study(
    title="dynamics (figures 5, 6, 13 and 14)",
    paper={"models": ("convit_small_patch16_224",), "recipe": "paper", "epochs": 300},
    digits={"seeds": (0,), "epochs": 30, "batch_size": 64},
    cells=cells,
    report=report,
)
