"""How accuracy depends on the number of images (Table 2, figures 2 and 11).

Of each class a fraction f is kept, drawn by seed, and the run has 1 / f times the epochs, so that every run is shown as
many images. Both models of a pair learn from the same images in the same order.
"""

from collections.abc import Sequence
from pathlib import Path

from convit.experiments import paper
from convit.experiments.cells import Cell, Result
from convit.experiments.curves import colours, learning_curves, log_axis, points
from convit.experiments.settings import Settings
from convit.experiments.statistics import difference, has, mean_of, over_seeds, shown, signed
from convit.experiments.study import Report, Study, headed, markdown, per_model, percent
from convit.experiments.variants import VARIANTS
from convit.figures import Figure, label, new_figure

PAIR = ("convit", "twin")


def cells(settings: Settings) -> list[Cell]:
    """ConViT and its twin, for every fraction."""
    return [
        settings.cell(model, key, VARIANTS[key], seed, fraction=fraction)
        for seed in settings.seeds
        for model in settings.models
        for fraction in settings.fractions
        for key in PAIR
    ]


def report(settings: Settings, results: Sequence[Result], runs: Path) -> Report:
    """Table 2, figure 2 and figure 11."""
    tables, figures = [], {}
    for model in settings.models:
        own = [result for result in results if has(result, model=model)]
        tables.append(headed(settings, model, _table(settings, own)))
        figures[per_model(settings, "accuracy")(model)] = _accuracy(settings, own)
        panels = [
            (
                f"{percent(fraction)} of each class",
                fraction,
                [(VARIANTS[key].title, [r for r in own if has(r, variant=key, fraction=fraction)]) for key in PAIR],
            )
            for fraction in sorted(settings.fractions)
        ]
        figures[per_model(settings, "curves")(model)] = learning_curves(panels, "Learning curves (figure 11)")
    return Report(tables=tuple(tables), figures=figures)


def _table(settings: Settings, results: Sequence[Result]) -> str:
    rows = []
    for fraction in sorted(settings.fractions):
        here = [result for result in results if has(result, fraction=fraction)]
        row: list[object] = [percent(fraction)]
        row += [shown(over_seeds(here, variant=key)) for key in PAIR]
        row += [signed(difference(here, *PAIR))]
        row += [shown(over_seeds(here, lambda result: result.top5, variant=key)) for key in PAIR]
        rows.append([*row, *paper.TABLE_2.get(fraction, ("", ""))])
    header = ["kept", "ConViT top-1", "plain attention top-1", "difference", "ConViT top-5", "plain attention top-5"]
    return markdown([*header, "*paper, ImageNet-1k: ConViT-S*", "*DeiT-S*"], rows)


def _accuracy(settings: Settings, results: Sequence[Result]) -> Figure:
    """Figure 2: accuracy, and how much better ConViT is, relative to its twin."""
    fractions = sorted(settings.fractions)
    figure, (left, right) = new_figure(9.0, 3.8, columns=2)
    for colour, key in zip(colours(2), PAIR, strict=True):
        means = [over_seeds(results, variant=key, fraction=fraction) for fraction in fractions]
        points(left, fractions, [mean for mean in means if mean], VARIANTS[key].title, colour)
    gains = []
    for fraction in fractions:
        ours, theirs = ({r.seed: r.top1 for r in results if has(r, variant=k, fraction=fraction)} for k in PAIR)
        gains.append(mean_of([100 * (ours[seed] / max(theirs[seed], 1e-9) - 1) for seed in sorted(ours)]))
    points(right, fractions, gains, "", colours(3)[2])
    right.axhline(0, color="#666666", linewidth=0.8, linestyle="--")
    label(left, "Accuracy (figure 2)", "part of each class that is kept", "top-1 (%)")
    label(right, "Relative gain of ConViT over plain attention", "part of each class that is kept", "gain (%)")
    for axes in (left, right):
        log_axis(axes, fractions, percent=True)
    left.legend(frameon=False)
    return figure


STUDY = Study(
    title="sample efficiency (Table 2, figures 2 and 11)",
    axes=("fractions",),
    paper={
        "models": ("convit_small_patch16_224",),
        "fractions": (0.05, 0.1, 0.3, 0.5, 1.0),
        "recipe": "paper",
        "epochs": 300,
    },
    digits={"fractions": (0.1, 0.3, 1.0), "seeds": (0, 1), "epochs": 10, "batch_size": 64},
    cells=cells,
    report=report,
)
