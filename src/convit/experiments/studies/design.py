"""What makes ConViT good on few images: the design of ``nano`` and ``mini``, with one thing at a time changed.

A search: its runs never see the test split, so that what it chooses can be judged there.
"""

from collections.abc import Sequence

from convit.experiments.results import Result
from convit.experiments.settings import Settings
from convit.experiments.study import TWIN, Report, Study, Variant
from convit.experiments.tables import chosen, difference, markdown, over_seeds, percent, shown
from convit.figures import BLUE, GREY, Figure, label, new_figure
from convit.training.recipes import MODERATE

BASE = "as-it-is"
# A start of gates would be refused for the twin, which has none.
PUBLISHED_TWIN = {"stem": "patch", "pool": "token", "norm": "layer", "weight_init": "published"}
PUBLISHED = {**PUBLISHED_TWIN, "gate_init": 1.0}
MIXED = {"rand_augment": MODERATE, "mixup": 0.2, "cutmix": 1.0}
VARIANTS = (
    Variant(BASE, "as it is"),
    Variant("twin", "plain attention in every block", TWIN.changes),
    Variant("patch-stem", "a linear map of each patch, no convolutions", {"stem": "patch"}),
    Variant("class-token", "class token in place of the mean patch", {"pool": "token"}),
    Variant("layer-norm", "layer norm in place of batch norm", {"norm": "layer"}),
    Variant("layer-norm-twin", "layer norm, plain attention", {"norm": "layer", **TWIN.changes}),
    Variant("published-start", "weights start from 0.02", {"weight_init": "published"}),
    Variant("heads-4", "4 heads (a 2 x 2 kernel)", {"heads": 4}),
    Variant("no-position", "no embedding of absolute position", {"position_embedding": False}),
    Variant("gates-1", "gates start at 1 (73% position)", {"gate_init": 1.0}),
    Variant("gates-5", "gates start at 5 (99% position)", {"gate_init": 5.0}),
    Variant("layers-4", "GPSA in 4 blocks, so in the last one too", {"local_up_to_layer": 4}),
    Variant("strength-1", "locality strength 1", {"locality_strength": 1.0}),
    Variant("strength-4", "locality strength 4", {"locality_strength": 4.0}),
    Variant("position-lr-10", "gates and centres learn 10 times as fast", {"position_lr": 10.0}),
    Variant("augmentation", "RandAugment, and mixup or CutMix for half of the batches", MIXED),
    Variant("resized", "resized crops in place of shifted ones", {"crop": "random_resized"}),
    Variant("published", "stem, pooling, norm, start of weights and gates as in the paper", PUBLISHED),
    Variant("published-twin", "the same with plain attention", {**PUBLISHED_TWIN, **TWIN.changes}),
)
"""The base first; all others are compared with it. Titles are true of ``nano`` and ``mini`` up to 64 px."""
ROWS = {variant.key: variant for variant in VARIANTS}


def report(settings: Settings, results: Sequence[Result]) -> Report:
    """For each fraction accuracy on the validation images, and the difference to the base, seed by seed."""
    by_fraction = {fraction: chosen(results, fraction=fraction) for fraction in settings.fractions}
    rows, header = [], [""]
    for row in settings.rows:
        line = [f"{row}: {ROWS[row].title}"]
        for here in by_fraction.values():
            change = "" if row == BASE else shown(difference(here, row, BASE), "+.1f")
            line += [shown(over_seeds(here, variant=row)), change]
        rows.append(line)
    for fraction in by_fraction:
        header += [f"top-1, {percent(fraction)} of the data", f"difference from {BASE}"]
    others = [row for row in settings.rows if row != BASE]
    return Report([markdown(header, rows)], {"differences": _differences(by_fraction, others)})


def _differences(by_fraction: dict[float, list[Result]], rows: Sequence[str]) -> Figure:
    """What each change costs or brings."""
    figure, axes = new_figure(9.0, 0.34 * len(rows) + 1.2, columns=len(by_fraction), share=True)
    for place, (fraction, here) in zip(axes, by_fraction.items(), strict=True):
        for height, row in enumerate(reversed(rows)):
            if mean := difference(here, row, BASE):
                place.errorbar(mean.mean, height, xerr=mean.error or 0.0, fmt="o", color=BLUE, capsize=3)
        place.axvline(0, color=GREY, linewidth=0.8, linestyle="--")
        label(place, f"{percent(fraction)} of each class", "change of top-1 (points)", "")
        place.set_yticks(range(len(rows)), [ROWS[row].title for row in reversed(rows)])
    return figure


STUDY = Study(
    title="design: what each of its parts brings",
    axes=("fractions", "rows"),
    paper=None,
    digits={"fractions": (0.1,), "rows": tuple(ROWS), "seeds": (0, 1), "epochs": 10, "batch_size": 64},
    fixed={"skip_test": True},
    rows=ROWS,
    base=BASE,
    variants=lambda settings: [ROWS[row] for row in settings.rows],
    report=report,
)
