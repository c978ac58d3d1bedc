"""What each part of ConViT contributes (Table 3, figure 12), and gates against none (figure 9)."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from convit.experiments import paper
from convit.experiments.cells import Result
from convit.experiments.curves import Named, learning_curves
from convit.experiments.settings import Settings
from convit.experiments.statistics import has, over_seeds, shown
from convit.experiments.study import Report, Study, headed, markdown, per_model, percent, row_cells
from convit.experiments.variants import TABLE_3, VARIANTS

ROWS = {**TABLE_3, "psa": VARIANTS["psa"]}


def report(settings: Settings, results: Sequence[Result], runs: Path) -> Report:
    """Table 3, figure 12, and figure 9 if ungated PSA is among the rows."""
    tables, figures = [], {}
    for model in settings.models:
        own = [result for result in results if has(result, model=model)]
        tables.append(headed(settings, model, _table(settings, own)))
        rows = [row for row in settings.rows if row in TABLE_3]
        if rows:
            panels = _panels(settings, own, rows, letters=True)
            figures[per_model(settings, "curves")(model)] = learning_curves(panels, "Ablations (figure 12)")
        if "psa" in settings.rows:
            panels = _panels(settings, own, [row for row in ("a", "psa", "e") if row in settings.rows])
            figures[per_model(settings, "gating")(model)] = learning_curves(panels, "With and without gates (figure 9)")
    return Report(tables=tuple(tables), figures=figures)


def _panels(
    settings: Settings, results: Sequence[Result], rows: Sequence[str], letters: bool = False
) -> list[tuple[str, float, Named]]:
    """A panel for each fraction, a line for each row."""
    return [
        (
            f"{percent(fraction)} of each class",
            fraction,
            [
                (
                    f"{row}: {ROWS[row].title}" if letters else ROWS[row].title,
                    [result for result in results if has(result, variant=row, fraction=fraction)],
                )
                for row in rows
            ],
        )
        for fraction in settings.fractions
    ]


def _table(settings: Settings, results: Sequence[Result]) -> str:
    """The paper's columns; ungated PSA, which its table does not have, has no gates to train."""
    published = [fraction for fraction in settings.fractions if fraction in (1.0, 0.1)]
    rows = []
    for row in settings.rows:
        ticks = [("yes" if tick else "no") for tick in ROWS[row].ticks]
        if row == "psa":
            ticks = ["none", "yes", "yes", "ungated"]
        ours = [shown(over_seeds(results, variant=row, fraction=fraction)) for fraction in settings.fractions]
        theirs = [paper.TABLE_3.get(row, {}).get(fraction, "") for fraction in published]
        rows.append([f"{row}: {ROWS[row].title}" if row in TABLE_3 else ROWS[row].title, *ticks, *ours, *theirs])
    header = ["", "train gating", "conv start", "train GPSA", "use GPSA"]
    header += [f"top-1, {percent(fraction)} of the data" for fraction in settings.fractions]
    return markdown([*header, *(f"*paper, ImageNet-1k, S+: {percent(fraction)}*" for fraction in published)], rows)


STUDY = Study(
    title="ablation (Table 3, figures 9 and 12)",
    axes=("fractions", "rows"),
    paper={
        "models": ("convit_small_plus_patch16_224",),
        "fractions": (1.0, 0.1),
        "rows": tuple(ROWS),
        "recipe": "paper",
        "epochs": 300,
    },
    digits={"fractions": (1.0,), "rows": tuple(ROWS), "seeds": (0, 1), "epochs": 10, "batch_size": 64},
    rows=ROWS,
    cells=partial(row_cells, rows=ROWS),
    report=report,
)
