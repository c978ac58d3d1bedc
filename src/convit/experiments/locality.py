"""How strong the locality at the start should be, and in how many layers (figure 8)."""

from collections.abc import Sequence
from pathlib import Path

from convit.experiments.cells import Cell, Result
from convit.experiments.curves import colours, log_axis, points
from convit.experiments.settings import Settings
from convit.experiments.statistics import has, over_seeds, shown
from convit.experiments.study import Report, Study, headed, markdown, per_model
from convit.experiments.variants import VARIANTS
from convit.figures import label, new_figure


def cells(settings: Settings) -> list[Cell]:
    """Every number of GPSA layers with every strength; with none, strength has no meaning and there is one run."""
    out = []
    for seed in settings.seeds:
        for model in settings.models:
            for layers in settings.layers:
                if layers == 0:
                    out.append(settings.cell(model, "twin", VARIANTS["twin"], seed, labels={"layers": 0}))
                    continue
                for strength in settings.strengths:
                    changes = {"local_up_to_layer": layers, "locality_strength": strength}
                    labels = {"layers": layers, "strength": strength}
                    out.append(settings.cell(model, "convit", VARIANTS["convit"], seed, changes=changes, labels=labels))
    return out


def report(settings: Settings, results: Sequence[Result], runs: Path) -> Report:
    """Figure 8, and its values as a table."""
    tables, figures = [], {}
    strengths = sorted(settings.strengths)
    for model in settings.models:
        own = [result for result in results if has(result, model=model)]
        rows, (figure, (axes,)) = [], new_figure(6.4, 3.9)
        for colour, layers in zip(colours(len(settings.layers)), sorted(settings.layers), strict=True):
            here = [result for result in own if has(result, layers=layers)]
            if layers == 0:
                means = [over_seeds(here)] * len(strengths)
            else:
                means = [over_seeds(here, strength=strength) for strength in strengths]
            rows.append([str(layers), *map(shown, means)])
            name = "no GPSA layer" if layers == 0 else f"{layers} GPSA layer{'s' if layers > 1 else ''}"
            there = [mean for mean in means if mean]
            points(axes, strengths, there, name, colour, style="--" if layers == 0 else "-o")
        label(axes, "Locality at the start (figure 8)", "locality strength", "top-1 (%)")
        log_axis(axes, strengths)
        figure.legend(loc="outside right upper", frameon=False, fontsize=8)
        header = ["GPSA layers", *(f"top-1, strength {strength:g}" for strength in strengths)]
        tables.append(headed(settings, model, markdown(header, rows)))
        figures[per_model(settings, "locality")(model)] = figure
    return Report(tables=tuple(tables), figures=figures)


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
    cells=cells,
    report=report,
)
