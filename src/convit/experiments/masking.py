"""What a trained model relies on: parts are switched off when it is evaluated (tables 5 and 6).

The position embedding is set to zero (Table 5); every gate of some first layers is set to 1, which leaves position
alone, or to 0, which leaves content alone (Table 6).
"""

from collections.abc import Sequence
from pathlib import Path

from convit.experiments import paper
from convit.experiments.cells import Cell, Result
from convit.experiments.measures import NO_POSITION_EMBEDDING, masked_key
from convit.experiments.settings import Settings
from convit.experiments.statistics import has, over_seeds, shown
from convit.experiments.study import Report, Study, headed, markdown
from convit.experiments.variants import VARIANTS

PAIR = ("twin", "convit")


def cells(settings: Settings) -> list[Cell]:
    """ConViT and its twin."""
    return [
        settings.cell(model, key, VARIANTS[key], seed, masks=settings.layers)
        for seed in settings.seeds
        for model in settings.models
        for key in PAIR
    ]


def report(settings: Settings, results: Sequence[Result], runs: Path) -> Report:
    """Tables 5 and 6."""
    tables = []
    for model in settings.models:
        own = [result for result in results if has(result, model=model)]
        tables.append(headed(settings, model, _position_embedding(own)))
        tables.append(headed(settings, model, _attention(settings, own)))
    return Report(tables=tuple(tables))


def _measured(results: Sequence[Result], variant: str, what: str) -> str:
    here = [result for result in results if what in result.measured]
    return shown(over_seeds(here, lambda result: result.measured[what], variant=variant))


def _position_embedding(results: Sequence[Result]) -> str:
    rows = []
    for key in PAIR:
        ours = [shown(over_seeds(results, variant=key)), _measured(results, key, NO_POSITION_EMBEDDING)]
        rows.append([VARIANTS[key].title, *ours, *paper.TABLE_5[key]])
    header = ["", "top-1", "without position embedding"]
    return markdown([*header, "*paper, ImageNet-1k, Ti (DeiT-Ti for plain)*", "*without*"], rows)


def _attention(settings: Settings, results: Sequence[Result]) -> str:
    rows: list[list[object]] = [["none", *[shown(over_seeds(results, variant="convit"))] * 2, 73.1, 73.1]]
    for layers in sorted(settings.layers):
        row: list[object] = [f"first {layers}"]
        row += [_measured(results, "convit", masked_key(kind, layers)) for kind in ("content", "position")]
        rows.append([*row, *(paper.TABLE_6[kind].get(layers, "") for kind in ("content", "position"))])
    header = ["layers masked", "top-1, content masked", "top-1, position masked"]
    return markdown([*header, "*paper, ImageNet-1k, Ti: content masked*", "*position masked*"], rows)


STUDY = Study(
    title="masking (tables 5 and 6)",
    axes=("layers",),
    paper={
        "models": ("convit_tiny_patch16_224",),
        "layers": (3, 5, 10),
        "recipe": "paper",
        "epochs": 300,
    },
    digits={"seeds": (0, 1, 2), "epochs": 20, "batch_size": 64},
    cells=cells,
    report=report,
)
