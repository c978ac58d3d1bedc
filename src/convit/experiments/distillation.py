"""What a teacher adds to the labels (Table 4), and what it does to how far the heads look (figure 10).

Hard distillation with half of the loss: the model learns the class that the teacher answers besides the true one. The
teacher's answers are learned by the ordinary head, so a distilled model is of the same architecture.
"""

from collections.abc import Sequence
from pathlib import Path

from convit.analysis.plots import non_locality_over_training
from convit.experiments import paper
from convit.experiments.cells import Cell, Result
from convit.experiments.dynamics import mean_history
from convit.experiments.settings import Settings, size_of
from convit.experiments.statistics import difference, has, over_seeds, shown, signed
from convit.experiments.study import Report, Study, headed, markdown, per_model
from convit.experiments.variants import VARIANTS

PAIR = ("twin", "convit")


def distilled(key: str) -> str:
    """What a variant is called when it is distilled."""
    return f"{key}_distilled"


def cells(settings: Settings) -> list[Cell]:
    """ConViT and its twin, with and without the teacher."""
    out = []
    for seed in settings.seeds:
        for model in settings.models:
            for key in PAIR:
                out.append(settings.cell(model, key, VARIANTS[key], seed, record=True))
                out.append(settings.cell(model, distilled(key), VARIANTS[key], seed, record=True, distilled=True))
    return out


def report(settings: Settings, results: Sequence[Result], runs: Path) -> Report:
    """Table 4 and figure 10."""
    tables, figures = [], {}
    for model in settings.models:
        own = [result for result in results if has(result, model=model)]
        rows = []
        for key in PAIR:
            ours = [shown(over_seeds(own, variant=key)), shown(over_seeds(own, variant=distilled(key)))]
            published = paper.TABLE_4.get(size_of(model)) if key == "convit" else None
            rows.append(
                [VARIANTS[key].title, *ours, signed(difference(own, distilled(key), key)), *(published or ("", ""))]
            )
        header = ["", "top-1", "distilled", "difference"]
        header += ["*paper, ImageNet-1k, RegNet-16GF: top-1*", "*distilled*"]
        tables.append(headed(settings, model, markdown(header, rows)))
        for variant, title in (("convit", "ConViT"), (distilled("convit"), "ConViT, distilled")):
            history = mean_history([result for result in own if has(result, variant=variant)], "non_locality")
            figure = non_locality_over_training(history)
            figure.axes[0].set_title(f"{title}: how far each layer looks, mean of its heads", fontsize=10)
            figures[per_model(settings, f"non_locality_{variant}")(model)] = figure
    return Report(tables=tuple(tables), figures=figures)


STUDY = Study(
    title="distillation (Table 4, figure 10)",
    axes=("teacher", "teacher_weights"),
    paper={
        "models": ("convit_small_plus_patch16_224",),
        "teacher": "regnety_160.deit_in1k",
        "recipe": "paper",
        "epochs": 300,
    },
    digits={"seeds": (0, 1, 2), "epochs": 20, "batch_size": 64},
    cells=cells,
    report=report,
)
