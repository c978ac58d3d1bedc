"""How far the heads look, and what the gates do, over training (figures 5, 6, 13 and 14).

Non-locality (equation 8) is that of the real forward pass, of validation images, after each epoch.
"""

from collections.abc import Sequence

import numpy as np

from convit.experiments.curves import mean_history, non_locality
from convit.experiments.results import Result
from convit.experiments.settings import Settings
from convit.experiments.study import CONVIT, TWIN, Report, Study
from convit.experiments.tables import chosen, markdown, mean_of, shown
from convit.figures import gates_over_training

PAIR = (CONVIT, TWIN)


def report(settings: Settings, results: Sequence[Result]) -> Report:
    """Figures 5 and 6, and the values after the first and the last epoch as a table."""
    own = {variant.key: chosen(results, variant=variant.key) for variant in PAIR}
    figures = {f"non_locality_{variant.key}": non_locality(own[variant.key], variant.title) for variant in PAIR}
    figures["gates"] = gates_over_training(mean_history(own[CONVIT.key], "gates"))

    def at(key: str, what: str, epoch: int, layer: int) -> str:
        """The mean over heads, then over seeds."""
        layers = [result.history[epoch][what] for result in own[key]]
        if layer >= len(layers[0]):
            return ""
        return shown(mean_of([float(np.mean(heads[layer])) for heads in layers]), ".2f")

    columns = [(variant.key, "non_locality", epoch) for variant in PAIR for epoch in (0, -1)]
    columns += [(CONVIT.key, "gates", epoch) for epoch in (0, -1)]
    layers = len(own[CONVIT.key][0].history[0]["non_locality"])
    rows = [[str(layer + 1), *(at(*column, layer) for column in columns)] for layer in range(layers)]
    header = [f"{v.title}: non-locality after {when} epoch" for v in PAIR for when in ("1", "the last")]
    table = markdown(["layer", *header, "gate after 1 epoch", "gate after the last epoch"], rows)
    return Report([table], figures)


STUDY = Study(
    title="dynamics (figures 5, 6, 13 and 14)",
    paper={"models": ("convit_small_patch16_224",), "recipe": "paper", "epochs": 300},
    digits={"seeds": (0,), "epochs": 30, "batch_size": 64},
    variants=lambda settings: PAIR,
    report=report,
)
