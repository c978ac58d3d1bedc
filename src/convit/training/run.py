"""A run, stage by stage: choose the images, plan, train, evaluate and draw; or read images and plan, and resume."""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from convit.classifier import Classifier
from convit.data.keeping import keep
from convit.data.packs import Cache
from convit.data.select import Selection
from convit.device import pick_device
from convit.errors import InputError
from convit.events import Listener, Planned, RunBegan, ignore, together
from convit.training import plots, resuming
from convit.training.distributed import World, join
from convit.training.duration import fitted
from convit.training.engine import Measure, Trainer, measure_nothing
from convit.training.evaluation import Evaluation
from convit.training.options import Asked
from convit.training.other_model import OtherModel
from convit.training.outcome import Outcome
from convit.training.plan import Plan
from convit.training.planning import planned
from convit.training.report import finish, introduction
from convit.training.run_folder import RunFolder
from convit.training.stopping import Stopped, stop_on_signals

_TRAINING = threading.Lock()


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A run that is complete."""

    folder: Path
    plan: Plan
    best: dict[str, Any]
    """The record of the best epoch: its line of ``metrics.jsonl``."""
    split: str
    """What the best model was evaluated on: ``"test"``, or ``"val"`` where there is no test split."""
    evaluation: Evaluation
    outcome: Outcome
    """How good that is, whether it overfits, whether it still improved; ``outcome.findings()`` says it in words."""
    classifier: Classifier
    """The best model, by top-1 on the validation images."""


def train(
    asked: Asked, tell: Listener = ignore, *, measure: Measure = measure_nothing, other: OtherModel | None = None
) -> Run:
    """Trains a classifier and writes its run folder; with ``asked.resume`` it continues a run.

    Started by ``torchrun`` or ``accelerate launch``, the processes train together (:mod:`convit.training.distributed`).

    Args:
        asked: the options.
        tell: the listener that gets the events.
        measure: gives further values for each epoch's record, from the present classifier and the validation images. It
            must depend on nothing else, or a resumed run would not give the same bits.
        other: trained in place of the ConViT that is asked for.

    Raises:
        InputError: data or options that cannot be used, before anything is written; or a loss that is not finite.
        Stopped: Ctrl-C or SIGTERM; the state is saved, ``resume`` continues it.
        OSError: the disk is full or read-only.
    """
    resumed, began = asked.resume is not None, time.perf_counter()
    with _alone(), join(asked.device) as world, contextlib.ExitStack() as held:
        tell = tell if world.main else ignore
        pick_device(asked.device)
        new = partial(_planned, asked, tell, world, measure, other, began)
        selection, plan = resuming.read(asked, world, held) if resumed else new()
        if resumed or selection.left_out or selection.full_scale is not None:
            world.from_main(partial(_keep_copies, selection, plan, tell))
        world.from_main(Cache(plan.options.cache_gb).clean)
        assert plan.options.out is not None
        folder = RunFolder(plan.options.out)
        # From here on there is something to save.
        with stop_on_signals(second_acts=world.size == 1) as stop, world.guard():
            tell = together(tell, folder.listen) if world.main else ignore
            trainer = Trainer(plan, selection.splits, folder, tell, stop, world, measure, other=other, resumed=resumed)
            if resumed:
                for note in selection.notes:
                    trainer.say(note)
                trainer.resume()
            else:
                _begin(trainer, selection, asked.overwrite, held)
            _tell_begin(trainer, new=not resumed)
            try:
                trainer.fit()
                return Run(folder=folder.path, plan=plan, **finish(trainer))
            except Stopped:
                if world.main:
                    with contextlib.suppress(OSError):  # the state is saved; pictures can wait until there is room
                        plots.draw_history(trainer.progress.history, folder.path, trainer.say)
                raise


def _keep_copies(selection: Selection, plan: Plan, tell: Listener) -> None:
    """Makes the copies that are lacking: of a resumed run those that were removed, or whose files were written anew; of
    a new one those that its check could not make yet, as a full scale was found or other images are held out now.

    An image that does not decode any more is named when it is learned from.
    """
    learning, measuring = plan.packs
    scale = plan.preprocess.full_scale
    measured = [(images.scaled(scale), measuring) for split, images in selection.splits.items() if split != "train"]
    if learning.limit:
        keep([(selection.splits["train"], learning), *measured], "decoding images", tell)


def _planned(
    asked: Asked, tell: Listener, world: World, measure: Measure, other: OtherModel | None, began: float
) -> tuple[Selection, Plan]:
    """The images and the plan of a new run, whose folder is looked at first: the images can take a while."""
    if asked.out is not None:
        RunFolder(asked.out).check_free(overwrite=asked.overwrite)
    selection, plan = planned(asked, tell, world)
    if asked.minutes is not None:
        assert other is None  # a study gives epochs
        plan = fitted(asked, selection, plan, measure, began)
    return selection, plan if other is None else other.plan(plan)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Within it no other thread of this process trains: both would draw from the same PyTorch generator.

    Raises:
        InputError: one does.
    """
    if not _TRAINING.acquire(blocking=False):
        raise InputError("train: another thread of this process trains; expected its end, or a process for each run")
    try:
        yield
    finally:
        _TRAINING.release()


def _begin(trainer: Trainer, selection: Selection, overwrite: bool, held: contextlib.ExitStack) -> None:
    """Makes the run folder of a new run, and says what will be done."""
    folder, plan = trainer.folder, trainer.plan
    if not trainer.world.main:
        return
    trainer.tell(Planned(folder.path))
    held.enter_context(folder.locked())
    folder.check_free(overwrite=overwrite)  # nobody was quicker
    if overwrite:
        folder.clear()
    folder.begin(plan, selection.splits, selection.record, selection.left_out)
    for line in introduction(trainer, selection):
        trainer.say(line)


def _tell_begin(trainer: Trainer, *, new: bool) -> None:
    """Tells the listeners; if one of them fails, such as a tracker without a key, a new run is removed."""
    plan, folder = trainer.plan, trainer.folder
    try:
        trainer.tell(RunBegan(folder.path, plan.options.to_dict(), trainer.progress.epoch))
    except InputError:
        if new and trainer.world.main:
            folder.discard()
        raise
