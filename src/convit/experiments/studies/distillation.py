"""What a teacher adds to the labels (Table 4), and what it does to how far the heads look (figure 10).

Hard distillation with half of the loss: the model learns the class that the teacher answers besides the true one. The
teacher's answers are learned by the ordinary head, so a distilled model is of the same architecture.
"""

from collections.abc import Sequence

from convit.experiments.curves import non_locality
from convit.experiments.results import Result
from convit.experiments.settings import Settings
from convit.experiments.study import CONVIT, TWIN, Report, Study, Variant
from convit.experiments.tables import chosen, difference, markdown, over_seeds, shown

PUBLISHED = {"convit_small_plus_patch16_224": (82.2, 82.9)}
"""Table 4: top-1 of ConViT without and with hard distillation from a RegNet-16GF; its DeiTs are of other shapes."""


def variants(settings: Settings) -> list[Variant]:
    """ConViT and its twin, without and with the teacher."""
    teacher = {"teacher": settings.teacher, "teacher_weights": settings.teacher_weights}
    return [
        variant
        for plain in (TWIN, CONVIT)
        for variant in (
            plain,
            Variant(f"{plain.key}_distilled", f"{plain.title}, distilled", {**plain.changes, **teacher}),
        )
    ]


def report(settings: Settings, results: Sequence[Result]) -> Report:
    """Table 4 and figure 10."""
    twin, twin_distilled, convit, distilled = variants(settings)
    published = PUBLISHED.get(settings.models[0], ("", ""))
    rows = [
        [
            plain.title,
            *(shown(over_seeds(results, variant=variant.key)) for variant in (plain, taught)),
            shown(difference(results, taught.key, plain.key), "+.1f"),
            *theirs,
        ]
        for plain, taught, theirs in ((twin, twin_distilled, ("", "")), (convit, distilled, published))
    ]
    header = ["", "top-1", "distilled", "difference", "*paper, ImageNet-1k, RegNet-16GF: top-1*", "*distilled*"]
    figures = {
        f"non_locality_{variant.key}": non_locality(chosen(results, variant=variant.key), variant.title)
        for variant in (convit, distilled)
    }
    return Report([markdown(header, rows)], figures)


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
    variants=variants,
    report=report,
)
