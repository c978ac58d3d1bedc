"""Training: from what was asked to a run folder.

options.py       what can be asked: each field is an option, a YAML key and a keyword
planning.py      the way in: asked + facts of the data -> the model -> a recipe's values -> a plan
recipes.py       values for what is left open, by occasion; model_choice.py, which model for which images
plan.py          a run with nothing left open; rules.py, the table of rules that it is checked against
run.py           the stages of a run; resuming.py reads them again; report.py, what is said and left
engine.py        the loop; batches.py, what it learns from; supervisor.py, what may end it, and how
learner.py       a step; objective.py, teacher.py, parameters.py, what it is made of
state.py         the exact state; saving.py writes it on a disk that may be full; run_folder.py all that is in a run
distributed.py   several processes; watch.py, parallel.py; workers.py those that load images; stopping.py signals
evaluation.py    accuracy; mistakes.py, plots.py; dry_run.py and lr_finder.py look ahead
"""

import importlib
from typing import TYPE_CHECKING, Any

from convit.training.options import Asked

if TYPE_CHECKING:
    from convit.training.evaluation import Evaluation, evaluate
    from convit.training.run import Run, train
    from convit.training.stopping import Stopped
else:
    # What needs PyTorch is imported when it is asked for: the help of `convit train` reads the options alone.
    _MODULES = {
        "Evaluation": "evaluation",
        "evaluate": "evaluation",
        "Run": "run",
        "train": "run",
        "Stopped": "stopping",
    }

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


__all__ = ["Asked", "Evaluation", "Run", "Stopped", "evaluate", "train"]
