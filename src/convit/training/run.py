"""A run, stage by stage: choose the images, plan, train, evaluate and draw; or read all that and go on."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from convit.classifier import Classifier
from convit.data import BadImage
from convit.data.record import describe
from convit.data.select import Selection, find_bad, refuse_bad, select
from convit.device import pick_device
from convit.errors import InputError
from convit.events import Listener, Planned, RunBegan, ignore, together
from convit.training import plots, resuming
from convit.training.distributed import ALONE, World, join
from convit.training.engine import Measure, Trainer, measure_nothing
from convit.training.evaluation import Evaluation
from convit.training.options import Asked
from convit.training.plan import Plan
from convit.training.planning import learning, make_plan
from convit.training.report import finish, introduction
from convit.training.run_folder import RunFolder
from convit.training.stopping import Stopped, stop_on_signals


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
    classifier: Classifier
    """The best model, by top-1 on the validation images."""


def train(asked: Asked, tell: Listener = ignore, *, measure: Measure = measure_nothing) -> Run:
    """Trains a classifier and writes its run folder; with ``asked.resume`` goes on with one.

    Started by ``torchrun`` or ``accelerate launch``, the processes train together (:mod:`convit.training.distributed`).

    Args:
        asked: the options.
        tell: hears how it goes on.
        measure: what each epoch's record has besides what the engine notes, from the classifier as it is then and the
            validation images. It must depend on nothing else, or a run that was stopped would not repeat.

    Raises:
        InputError: data or options that do not work, before anything is written; or a loss that is no number.
        Stopped: Ctrl-C or SIGTERM; the state is saved, ``resume`` continues it.
        OSError: the disk is full or read-only.
    """
    with join(asked.device) as world, contextlib.ExitStack() as held:
        tell = tell if world.main else ignore
        pick_device(asked.device)
        if asked.resume is not None:
            folder, (selection, plan) = RunFolder(asked.resume), resuming.read(asked, world, held)
        else:
            if asked.out is not None:  # before the images are looked at, which can take a while
                RunFolder(asked.out).check_free(overwrite=asked.overwrite)
            selection, plan = planned(asked, tell, world)
            assert plan.options.out is not None
            folder = RunFolder(plan.options.out)
        # From here on there is something to save.
        with stop_on_signals(second_acts=world.size == 1) as stop, world.guard():
            tell = together(tell, folder.listen) if world.main else ignore
            trainer = Trainer(
                plan, selection.splits, folder, tell, stop, world, measure, resumed=asked.resume is not None
            )
            if asked.resume is not None:
                trainer.resume()
            else:
                _begin(trainer, selection, asked.overwrite, held)
            _tell_begin(trainer, new=asked.resume is None)
            try:
                trainer.fit()
                return Run(folder=folder.path, plan=plan, **finish(trainer))
            except Stopped:
                if world.main:
                    with contextlib.suppress(OSError):  # the state is saved; pictures can wait until there is room
                        plots.draw_history(trainer.progress.history, folder.path)
                raise


def planned(asked: Asked, tell: Listener, world: World = ALONE) -> tuple[Selection, Plan]:
    """The images of a new run and its plan. Nothing is written.

    Options that do not fit are refused before the images are decoded, which can take minutes. Files that do not decode
    are left out if ``skip_bad`` was asked for; then all is chosen and planned for the others.

    Raises:
        InputError: data or options that do not work.
    """
    selection, plan = _chosen(asked, world)
    bad = world.from_main(partial(find_bad, selection, tell))
    if bad and not asked.skip_bad:
        refuse_bad(selection.name, bad)
    if bad:
        selection, plan = _chosen(asked, world, bad)
    return selection, plan


def _chosen(asked: Asked, world: World, bad: Sequence[BadImage] = ()) -> tuple[Selection, Plan]:
    """Images and plan without the files that are ``bad``."""
    if asked.data is None:
        raise InputError("data: got none, expected a folder of images or the name of a data set, such as digits")
    selection = world.in_turn(partial(select, asked.data, learning(asked, bad)))
    plan = make_plan(asked, selection.facts(), processes=world.size)
    world.check_same("images", [list(images.names) for images in selection.splits.values()])
    return selection, replace(plan, sources=world.from_main(partial(resuming.sources_of, plan, selection)))


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
    folder.begin(plan, selection.splits, describe(selection.class_names, selection.splits), selection.left_out)
    for line in introduction(trainer, selection):
        trainer.say(line)


def _tell_begin(trainer: Trainer, *, new: bool) -> None:
    """Tells the listeners; where one cannot begin, as a tracker without a key, nothing of a new run is left."""
    plan, folder = trainer.plan, trainer.folder
    try:
        trainer.tell(RunBegan(folder.path, plan.options.to_dict(), trainer.progress.epoch))
    except InputError:
        if new and trainer.world.main:
            folder.discard()
        raise
