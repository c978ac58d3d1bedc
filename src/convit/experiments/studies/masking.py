"""What a trained model relies on: parts are switched off when it is evaluated (tables 5 and 6).

The position embedding is set to zero (Table 5); every gate of some first layers is set to 1, which leaves position
alone, or to 0, which leaves content alone (Table 6).
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager

from convit.analysis import masked, without_position_embedding
from convit.classifier_loading import load
from convit.data.select import Evaluating, select
from convit.device import pick_device
from convit.experiments.results import Result, kept
from convit.experiments.settings import Settings
from convit.experiments.study import CONVIT, TWIN, Report, Study
from convit.experiments.tables import markdown, over_seeds, shown
from convit.training.evaluation import evaluate
from convit.training.run_folder import RunFolder

PAIR = (TWIN, CONVIT)
KINDS = ("content", "position")
NO_POSITION_EMBEDDING = "no position embedding"
TABLE_5 = {"convit": (73.1, 67.1), "twin": (72.2, 38.3)}
"""Top-1 of Ti with and without the absolute position embedding. The paper's DeiT-Ti has 3 heads."""
TABLE_6 = {"content": {3: 62.3, 5: 35.0, 10: 1.3}, "position": {3: 63.5, 5: 53.1, 10: 46.8}}
"""Top-1 of ConViT-Ti with one kind of attention masked in so many first layers; 73.1 with none."""


def masked_key(kind: str, layers: int) -> str:
    """The name of a measurement: ``kind`` (content or position) switched off in the first ``layers`` layers."""
    return f"no {kind} in {layers}"


def measure(settings: Settings, result: Result) -> dict[str, float]:
    """Top-1 in percent of the images that the best model was evaluated on, with parts switched off, by what is."""
    off = {masked_key(kind, layers): {kind: layers} for layers in sorted(settings.layers) for kind in KINDS}
    wanted = [NO_POSITION_EMBEDDING, *(off if result.labels["variant"] == CONVIT.key else ())]

    def accuracies(missing: list[str]) -> dict[str, float]:
        classifier = load(result.folder, pick_device(settings.device))
        model = classifier.model
        choice = Evaluating(
            split="test" if result.split == "test" else "val",
            known=RunFolder(result.folder).known(),
            data_root=settings.data_root,
            check=settings.skip_bad,
            full_scale=classifier.preprocess.full_scale,
        )
        (images,) = select(settings.data, choice).splits.values()

        def accuracy(switched_off: AbstractContextManager[None]) -> float:
            with switched_off:
                return evaluate(model, images, classifier.preprocess, workers=result.config["workers"]).top1

        return {
            name: accuracy(masked(model, **off[name]) if name in off else without_position_embedding(model))
            for name in missing
        }

    return kept(result.folder / "masked.json", wanted, accuracies)


def report(settings: Settings, results: Sequence[Result]) -> Report:
    """Tables 5 and 6."""

    def top1(variant: str, off: str) -> str:
        there = [result for result in results if off in result.measured]
        return shown(over_seeds(there, lambda result: result.measured[off], variant=variant))

    def whole(variant: str) -> str:
        return shown(over_seeds(results, variant=variant))

    embedding = [
        [variant.title, whole(variant.key), top1(variant.key, NO_POSITION_EMBEDDING), *TABLE_5[variant.key]]
        for variant in PAIR
    ]
    header = ["", "top-1", "without position embedding"]
    header += ["*paper, ImageNet-1k, Ti (DeiT-Ti for plain)*", "*without*"]
    attention: list[list[object]] = [["none", *[whole(CONVIT.key)] * 2, 73.1, 73.1]]
    for layers in sorted(settings.layers):
        ours = [top1(CONVIT.key, masked_key(kind, layers)) for kind in KINDS]
        attention.append([f"first {layers}", *ours, *(TABLE_6[kind].get(layers, "") for kind in KINDS)])
    masks = ["layers masked", "top-1, content masked", "top-1, position masked"]
    masks += ["*paper, ImageNet-1k, Ti: content masked*", "*position masked*"]
    return Report([markdown(header, embedding), markdown(masks, attention)])


STUDY = Study(
    title="masking (tables 5 and 6)",
    axes=("layers",),
    paper={"models": ("convit_tiny_patch16_224",), "layers": (3, 5, 10), "recipe": "paper", "epochs": 300},
    digits={"seeds": (0, 1, 2), "epochs": 20, "batch_size": 64},
    layers_from=1,
    variants=lambda settings: PAIR,
    measure=measure,
    report=report,
)
