"""How accuracy depends on the number of images (Table 2, figures 2 and 11).

Of each class a fraction f is kept, drawn by seed, and the run has 1 / f times the epochs, so that every run is shown as
many images. Both models of a pair learn from the same images in the same order.
"""

from collections.abc import Sequence
from operator import attrgetter

from convit.experiments.curves import colours, learning_curves, log_axis, points
from convit.experiments.results import Result
from convit.experiments.settings import Settings
from convit.experiments.study import CONVIT, TWIN, Report, Study
from convit.experiments.tables import chosen, difference, markdown, over_seeds, percent, shown
from convit.figures import Figure, label, new_figure

PAIR = (CONVIT, TWIN)
PUBLISHED = {0.05: (47.8, 34.8), 0.1: (59.6, 48.0), 0.3: (73.7, 66.1), 0.5: (78.2, 74.6), 1.0: (81.4, 79.9)}
"""Table 2: top-1 of ConViT-S and DeiT-S (6 heads, width 384) by the part of each class that is kept."""


def report(settings: Settings, results: Sequence[Result]) -> Report:
    """Table 2, figure 2 and figure 11."""
    by_fraction = {fraction: chosen(results, fraction=fraction) for fraction in sorted(settings.fractions)}
    several = any(result.top5 is not None for result in results)  # of five classes or fewer it is not told
    rows = []
    for fraction, here in by_fraction.items():
        top1 = [shown(over_seeds(here, variant=variant.key)) for variant in PAIR]
        top5 = [shown(over_seeds(here, attrgetter("top5"), variant=variant.key)) for variant in PAIR if several]
        gain = shown(difference(here, CONVIT.key, TWIN.key), "+.1f")
        rows.append([percent(fraction), *top1, gain, *top5, *PUBLISHED.get(fraction, ("", ""))])
    header = ["kept", "ConViT top-1", "plain attention top-1", "difference"]
    header += ["ConViT top-5", "plain attention top-5"] if several else []
    header += ["*paper, ImageNet-1k: ConViT-S*", "*DeiT-S*"]
    panels = [(f, {v.title: chosen(here, variant=v.key) for v in PAIR}) for f, here in by_fraction.items()]
    figures = {"accuracy": _accuracy(by_fraction), "curves": learning_curves(panels, "Learning curves (figure 11)")}
    return Report([markdown(header, rows)], figures)


def _accuracy(by_fraction: dict[float, list[Result]]) -> Figure:
    """Figure 2: accuracy, and how much better ConViT is, relative to its twin."""
    fractions, every = list(by_fraction), by_fraction.values()
    figure, (left, right) = new_figure(9.0, 3.8, columns=2)
    for colour, variant in zip(colours(2), PAIR, strict=True):
        points(left, fractions, [over_seeds(here, variant=variant.key) for here in every], variant.title, colour)
    gains = [difference(here, CONVIT.key, TWIN.key, lambda a, b: 100 * (a / max(b, 1e-9) - 1)) for here in every]
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
    variants=lambda settings: PAIR,
    report=report,
)
