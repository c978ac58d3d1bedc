"""How strong the locality at the start should be, and in how many layers (figure 8)."""

from collections.abc import Sequence

from convit.errors import counted
from convit.experiments.curves import colours, log_axis, points
from convit.experiments.results import Result
from convit.experiments.settings import Settings
from convit.experiments.study import CONVIT, TWIN, Report, Study, Variant
from convit.experiments.tables import chosen, markdown, over_seeds, shown
from convit.figures import label, new_figure


def variants(settings: Settings) -> list[Variant]:
    """Every number of GPSA layers with every strength; with none, strength has no meaning and there is one run."""
    made = []
    for layers in settings.layers:
        if layers == 0:
            made.append(Variant(TWIN.key, TWIN.title, TWIN.changes, {"layers": 0}))
            continue
        for strength in settings.strengths:
            changes = {"local_up_to_layer": layers, "locality_strength": strength}
            made.append(Variant(CONVIT.key, CONVIT.title, changes, {"layers": layers, "strength": strength}))
    return made


def report(settings: Settings, results: Sequence[Result]) -> Report:
    """Figure 8, and its values as a table."""
    strengths = sorted(settings.strengths)
    rows, (figure, (axes,)) = [], new_figure(6.4, 3.9)
    for colour, layers in zip(colours(len(settings.layers)), sorted(settings.layers), strict=True):
        here = chosen(results, layers=layers)
        means = [over_seeds(chosen(here, strength=strength) if layers else here) for strength in strengths]
        rows.append([str(layers), *map(shown, means)])
        name = counted(layers, "GPSA layer") if layers else "no GPSA layer"
        points(axes, strengths, means, name, colour, style="-o" if layers else "--")
    label(axes, "Locality at the start (figure 8)", "locality strength", "top-1 (%)")
    log_axis(axes, strengths)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    header = ["GPSA layers", *(f"top-1, strength {strength:g}" for strength in strengths)]
    return Report([markdown(header, rows)], {"locality": figure})


STUDY = Study(
    title="locality at the start (figure 8)",
    axes=("strengths", "layers"),
    paper={
        "models": ("convit_small_patch16_224",),
        "strengths": (0.01, 0.1, 1.0),
        "layers": (0, 3, 6, 9),
        "classes": 100,
        "recipe": "paper",
        "epochs": 300,
    },
    digits={"strengths": (0.01, 0.1, 1.0), "seeds": (0, 1), "epochs": 10, "batch_size": 64},
    variants=variants,
    report=report,
)
