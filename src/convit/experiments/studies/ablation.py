"""What each part of ConViT contributes (Table 3, figure 12), and gates against none (figure 9).

The rows of Table 3:

- a: ConViT.
- b: every gate stays at one half (logit 0), so content and position weigh alike.
- c: queries, keys, values and positions of GPSA start from the published normal of 0.02, also in models whose other
  weights start otherwise; gates as in a.
- d: b and c together.
- e: plain attention in every block (DeiT).
- f: the attention of the GPSA blocks (queries, keys, values, positions, projection) stays at its convolutional start,
  the gates at one half; perceptrons, norms, embeddings, the last blocks and the head learn.
- g: as f, from the start of c: fixed, random attention.
"""

from collections.abc import Sequence

from convit.experiments.curves import learning_curves
from convit.experiments.results import Result
from convit.experiments.settings import Settings
from convit.experiments.study import CONVIT, TWIN, Report, Study, Variant
from convit.experiments.tables import chosen, markdown, over_seeds, percent, shown
from convit.figures import Figure

GATES, FROZEN, RANDOM = {"freeze_gates": True}, {"freeze_gates": True, "freeze_gpsa": True}, {"random_init": True}
VARIANTS = (
    Variant("a", CONVIT.title),
    Variant("b", "gates fixed at one half", GATES),
    Variant("c", "no convolutional start", RANDOM),
    Variant("d", "b and c", GATES | RANDOM),
    Variant("e", TWIN.title, TWIN.changes),
    Variant("f", "GPSA frozen", FROZEN),
    Variant("g", "GPSA frozen, no convolutional start", FROZEN | RANDOM),
    Variant("psa", "ungated PSA", {"ungated": True}),
)
ROWS = {row.key: row for row in VARIANTS}
GATING: tuple[str, ...] = ("a", "psa", "e")
"""The rows of figure 9."""
COLUMNS = ("train gating", "conv start", "train GPSA", "use GPSA")
TICKS = {
    "a": ("yes", "yes", "yes", "yes"),
    "b": ("no", "yes", "yes", "yes"),
    "c": ("yes", "no", "yes", "yes"),
    "d": ("no", "no", "yes", "yes"),
    "e": ("no", "no", "no", "no"),
    "f": ("no", "yes", "no", "yes"),
    "g": ("no", "no", "no", "yes"),
    "psa": ("none", "yes", "yes", "ungated"),
}
"""The paper's columns; ungated PSA, which its table does not have, has no gates to train."""
PUBLISHED = {
    "a": {1.0: 82.2, 0.1: 59.7},
    "b": {1.0: 82.0, 0.1: 57.4},
    "c": {1.0: 81.4, 0.1: 56.9},
    "d": {1.0: 81.6, 0.1: 54.6},
    "e": {1.0: 79.1, 0.1: 47.8},
    "f": {1.0: 78.6, 0.1: 54.3},
    "g": {1.0: 73.7, 0.1: 44.8},
}
"""Table 3: top-1 of S+ by row and part of the data."""


def report(settings: Settings, results: Sequence[Result]) -> Report:
    """Table 3, figure 12, and figure 9 if ungated PSA is among the rows."""
    titles = {row: f"{row}: {ROWS[row].title}" if row in PUBLISHED else ROWS[row].title for row in settings.rows}
    published = [fraction for fraction in settings.fractions if fraction in (1.0, 0.1)]
    table = []
    for row, title in titles.items():
        ours = [shown(over_seeds(results, variant=row, fraction=fraction)) for fraction in settings.fractions]
        theirs = [PUBLISHED.get(row, {}).get(fraction, "") for fraction in published]
        table.append([title, *TICKS[row], *ours, *theirs])
    header = ["", *COLUMNS, *(f"top-1, {percent(fraction)} of the data" for fraction in settings.fractions)]
    header += [f"*paper, ImageNet-1k, S+: {percent(fraction)}*" for fraction in published]

    def curves(rows: dict[str, str], title: str) -> Figure:
        panels = [
            (fraction, {name: chosen(results, variant=row, fraction=fraction) for row, name in rows.items()})
            for fraction in settings.fractions
        ]
        return learning_curves(panels, title)

    figures = {}
    if rows := {row: title for row, title in titles.items() if row in PUBLISHED}:
        figures["curves"] = curves(rows, "Ablations (figure 12)")
    if "psa" in settings.rows:
        gating = {row: ROWS[row].title for row in GATING if row in settings.rows}
        figures["gating"] = curves(gating, "With and without gates (figure 9)")
    return Report([markdown(header, table)], figures)


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
    variants=lambda settings: [ROWS[row] for row in settings.rows],
    report=report,
)
