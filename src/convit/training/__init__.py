"""Training: from the config to a run folder.

options.py       the config (asked): each field is an option, a YAML key and a keyword
planning.py      start reading here: asked + facts of the data -> the model -> a recipe's values -> a plan
recipes.py       values for options that were not given; model_choice.py, which model for which images
plan.py          a run with every value decided; rules.py, the table of rules that it must satisfy
folds.py         several runs in one folder, each without another part of the images
run.py           the stages of a run; resuming.py continues a run; report.py, its messages and final files
engine.py        the loop; batches.py, its batches; supervisor.py, early ends: signals, failures, full disks
learner.py       a step, made of objective.py, teacher.py and parameters.py
state.py         the exact state; saving.py, saving when the disk may be full; run_folder.py, the files of a run
history.py       whether a record of a run's epochs is whole
distributed.py   several processes; watch.py, parallel.py; workers.py, those that load images; stopping.py, signals
evaluation.py    accuracy; mistakes.py, plots.py; outcome.py, what came of a run; page.py, its report.html
dry_run.py       and lr_finder.py, memory.py, speed.py: what a run will cost; duration.py, a run of so many minutes
"""

import importlib
from typing import TYPE_CHECKING, Any

from convit.training.options import Asked

if TYPE_CHECKING:
    from convit.training.evaluation import Evaluation, evaluate, logits_of
    from convit.training.run import Run, train
    from convit.training.stopping import Stopped
else:
    # What needs PyTorch is imported when it is asked for: the help of `convit train` reads the options alone.
    _MODULES = {
        "Evaluation": "evaluation",
        "evaluate": "evaluation",
        "logits_of": "evaluation",
        "Run": "run",
        "train": "run",
        "Stopped": "stopping",
    }

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


__all__ = ["Asked", "Evaluation", "Run", "Stopped", "evaluate", "logits_of", "train"]
