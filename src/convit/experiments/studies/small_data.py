"""Which model to train on few images: ConViT beside its twin, CNNs and another small transformer, at equal minutes.

All have the same images, order, augmentation, batch, optimiser and schedule, and one thread. ConViT's number of epochs
is asked for; the others have as many as take as long (:mod:`convit.experiments.costs`). The learning rate of each is
the recipe's times a factor of its own, chosen on validation images (:mod:`convit.experiments.rivals`).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

from convit.errors import counted
from convit.events import Said
from convit.experiments.costs import BASE, at_equal_minutes, costs, whole_epochs
from convit.experiments.curves import MINUTES, colours, learning_curves, log_axis, points
from convit.experiments.results import Cell, Result
from convit.experiments.rivals import RIVALS
from convit.experiments.settings import Settings
from convit.experiments.study import Report, Study, Tell, Variant
from convit.experiments.tables import chosen, difference, markdown, mean_of, over_seeds, percent, shown
from convit.figures import Figure, label, new_figure

ROWS = {
    name: Variant(name, rival.title, rival.changes, rival=name if rival.build else None)
    for name, rival in RIVALS.items()
}


def variants(settings: Settings) -> list[Variant]:
    """Every model with every factor of its learning rate; a search of several never sees the test split."""
    searched = {"skip_test": True} if len(settings.rates) > 1 else {}
    return [
        replace(ROWS[row], changes={**ROWS[row].changes, **searched}, labels={"rate": rate})
        for row in settings.rows
        for rate in settings.rates
    ]


def prepare(settings: Settings, folder: Path, tell: Tell) -> Callable[[Cell], Cell]:
    """Measures what each model costs, and gives every run its number of epochs and its learning rate."""
    known = costs(settings, folder, tell)
    for (_, fraction, name), cost in known.items():
        epochs, part = whole_epochs(cost.epochs)
        length = counted(epochs, "epoch") if part == 1 else f"{part:.2f} epochs"
        tell(Said(f"{percent(fraction)}: {name} takes {cost.times_convit:.2f} times ConViT's time, {length}"))

    def complete(cell: Cell) -> Cell:
        name = str(cell.labels["variant"])
        cost = known[str(cell.labels["model"]), float(cell.labels["fraction"]), name]
        rate = RIVALS[name].rate * float(cell.labels["rate"])
        return replace(cell, asked=at_equal_minutes(cell.asked, cost, rate))

    return complete


def report(settings: Settings, results: Sequence[Result]) -> Report:
    """A table for each fraction, accuracy over minutes and by fraction; of several rates only which is the best."""
    by_fraction = {fraction: chosen(results, fraction=fraction) for fraction in sorted(settings.fractions)}
    if len(settings.rates) > 1:
        tables = [_rates(settings, fraction, here) for fraction, here in by_fraction.items()]
        return Report([*tables, "**bold**: the best, on the validation images"])
    panels = [
        (fraction, {RIVALS[row].title: chosen(here, variant=row) for row in settings.rows})
        for fraction, here in by_fraction.items()
    ]
    return Report(
        [_table(settings, fraction, here) for fraction, here in by_fraction.items()],
        {
            "minutes": learning_curves(panels, "Accuracy over the time of the training steps", MINUTES),
            "accuracy": _accuracy(settings, by_fraction),
        },
    )


def _table(settings: Settings, fraction: float, here: Sequence[Result]) -> str:
    rows = []
    for row in settings.rows:
        own = chosen(here, variant=row)
        rows.append(
            [
                RIVALS[row].title,
                f"{own[0].parameters / 1e6:.2f}M",
                f"{own[0].flops / 1e9:.3f}G",
                f"{own[0].shown:,}",
                shown(mean_of([result.seconds / 60 for result in own]), ".2f"),
                shown(over_seeds(own)),
                "" if row == BASE else shown(difference(here, row, BASE), "+.1f"),
            ]
        )
    header = [f"{percent(fraction)} of each class", "parameters", "multiply-adds", "images shown", "minutes"]
    return markdown([*header, "top-1", f"difference from {RIVALS[BASE].title}"], rows)


def _rates(settings: Settings, fraction: float, here: Sequence[Result]) -> str:
    """Accuracy on the validation images by factor of the learning rate."""
    rows = []
    for row in settings.rows:
        means = [over_seeds(here, attrgetter("val_top1"), variant=row, rate=rate) for rate in settings.rates]
        best = max(mean.mean for mean in means if mean)
        cells = [f"**{mean}**" if mean and mean.mean == best else shown(mean) for mean in means]
        rows.append([f"{row}: {RIVALS[row].title}", f"{RIVALS[row].rate:g}", *cells])
    header = [f"{percent(fraction)} of each class", "its factor today"]
    return markdown([*header, *(f"times {rate:g}" for rate in settings.rates)], rows)


def _accuracy(settings: Settings, by_fraction: dict[float, list[Result]]) -> Figure:
    """Accuracy of the best model of each run, by fraction."""
    figure, (axes,) = new_figure(6.4, 3.9)
    for colour, row in zip(colours(len(settings.rows)), settings.rows, strict=True):
        means = [over_seeds(here, variant=row) for here in by_fraction.values()]
        points(axes, list(by_fraction), means, RIVALS[row].title, colour)
    label(axes, "Accuracy at equal minutes", "part of each class that is kept", "top-1 (%)")
    log_axis(axes, list(by_fraction), percent=True)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return figure


STUDY = Study(
    title="small data: models at equal minutes",
    axes=("fractions", "rows", "rates"),
    paper=None,
    digits={
        "fractions": (0.1, 0.3, 1.0),
        "rows": ("convit", "twin", "cnn", "resnet18", "cct"),
        "rates": (1.0,),
        "seeds": (0, 1),
        "epochs": 10,
        "batch_size": 64,
    },
    rows=ROWS,
    base=BASE,
    variants=variants,
    prepare=prepare,
    threads=1,
    report=report,
)
