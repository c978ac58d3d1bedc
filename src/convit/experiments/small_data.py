"""What makes ConViT good on few images: its design for small data, with one thing at a time changed.

A search: its runs never see the test part, so that what it chooses can be judged there.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from convit.experiments.cells import Result
from convit.experiments.settings import Settings
from convit.experiments.statistics import difference, has, over_seeds, shown, signed
from convit.experiments.study import Report, Study, headed, markdown, per_model, percent, row_cells
from convit.experiments.variants import VARIANTS, Variant
from convit.figures import BLUE, GREY, Figure, label, new_figure
from convit.train.recipes import MODERATE

BASE = "as-it-is"
# A start of gates would be refused for the twin, which has none.
PUBLISHED_TWIN = {"stem": "patch", "pool": "token", "norm": "layer", "weight_start": "published"}
PUBLISHED = {**PUBLISHED_TWIN, "gate_start": 1.0}
ROWS = {
    BASE: Variant(title="as it is"),
    "twin": Variant(title="plain attention in every block", changes=VARIANTS["twin"].changes),
    "patch-stem": Variant(title="a linear map of each patch, no convolutions", changes={"stem": "patch"}),
    "class-token": Variant(title="class token in place of the mean patch", changes={"pool": "token"}),
    "layer-norm": Variant(title="layer norm in place of batch norm", changes={"norm": "layer"}),
    "layer-norm-twin": Variant(
        title="layer norm, plain attention", changes={"norm": "layer", **VARIANTS["twin"].changes}
    ),
    "published-start": Variant(title="weights start from 0.02", changes={"weight_start": "published"}),
    "heads-4": Variant(title="4 heads (a 2 x 2 kernel)", changes={"heads": 4}),
    "no-position": Variant(title="no embedding of absolute position", changes={"position_embedding": False}),
    "gates-1": Variant(title="gates start at 1 (73% position)", changes={"gate_start": 1.0}),
    "gates-5": Variant(title="gates start at 5 (99% position)", changes={"gate_start": 5.0}),
    "layers-4": Variant(title="GPSA in 4 blocks, so in the last one too", changes={"local_up_to_layer": 4}),
    "strength-1": Variant(title="locality strength 1", changes={"locality_strength": 1.0}),
    "strength-4": Variant(title="locality strength 4", changes={"locality_strength": 4.0}),
    "position-lr-10": Variant(title="gates and centres learn 10 times as fast", optim={"position_lr": 10.0}),
    "augmentation": Variant(
        title="RandAugment, and mixup or CutMix for half of the batches",
        augment={"rand_augment": MODERATE, "mixup": 0.2, "cutmix": 1.0},
    ),
    "shift": Variant(title="shifted crops in place of resized ones", augment={"crop": "shift"}),
    "published": Variant(title="stem, pooling, norm, start of weights and gates as in the paper", changes=PUBLISHED),
    "published-twin": Variant(
        title="the same with plain attention", changes={**PUBLISHED_TWIN, **VARIANTS["twin"].changes}
    ),
}
"""The base first; all others are compared with it. Titles are true of ``nano`` and ``mini`` up to 64 px."""


def report(settings: Settings, results: Sequence[Result], runs: Path) -> Report:
    """For each fraction accuracy on the validation images, and the difference to the base, seed by seed."""
    tables, figures = [], {}
    for model in settings.models:
        own = [result for result in results if has(result, model=model)]
        rows: list[list[object]] = []
        for row in settings.rows:
            line: list[object] = [f"{row}: {ROWS[row].title}"]
            for fraction in settings.fractions:
                here = [result for result in own if has(result, fraction=fraction)]
                change = "" if row == BASE else signed(difference(here, row, BASE))
                line += [shown(over_seeds(here, variant=row)), change]
            rows.append(line)
        header = [""]
        for fraction in settings.fractions:
            header += [f"top-1, {percent(fraction)} of the data", f"difference from {BASE}"]
        tables.append(headed(settings, model, markdown(header, rows)))
        figures[per_model(settings, "differences")(model)] = _differences(settings, own)
    return Report(tables=tuple(tables), figures=figures)


def _differences(settings: Settings, results: Sequence[Result]) -> Figure:
    """What each change costs or brings."""
    rows = [row for row in settings.rows if row != BASE]
    figure, axes = new_figure(9.0, 0.34 * len(rows) + 1.2, columns=len(settings.fractions), share=True)
    for place, fraction in zip(axes, settings.fractions, strict=True):
        here = [result for result in results if has(result, fraction=fraction)]
        for height, row in enumerate(reversed(rows)):
            if mean := difference(here, row, BASE):
                place.errorbar(mean.mean, height, xerr=mean.error or 0.0, fmt="o", color=BLUE, capsize=3)
        place.axvline(0, color=GREY, linewidth=0.8, linestyle="--")
        label(place, f"{percent(fraction)} of each class", "change of top-1 (points)", "")
        place.set_yticks(range(len(rows)), [ROWS[row].title for row in reversed(rows)])
    return figure


STUDY = Study(
    title="small data: what each part of the design brings",
    axes=("fractions", "rows"),
    paper=None,
    digits={"fractions": (0.1,), "rows": tuple(ROWS), "seeds": (0, 1), "epochs": 10, "batch_size": 64},
    rows=ROWS,
    base=BASE,
    cells=partial(row_cells, rows=ROWS, test=False),
    report=report,
)
