"""Resumes a run: everything is read from its folder, and a change since then is refused, with its name."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from convit.classifier_config import read_config
from convit.classifier_folder import CONFIG as MODEL_CONFIG
from convit.classifier_folder import WEIGHTS
from convit.data.record import first_change
from convit.data.select import Selection, select
from convit.errors import InputError, counted
from convit.files import absolute, fingerprint
from convit.training.distributed import World
from convit.training.options import Asked
from convit.training.plan import MAY_CHANGE, PLACES, Plan
from convit.training.planning import fingerprint_of_weights, learning
from convit.training.run_folder import CONFIG, RECORD, SPLIT, RunFolder, first_difference
from convit.training.state import states

AS_IT_WAS = "expected what the run began with; a run with other options is a new one, with --config and another --out"


def read(asked: Asked, world: World, held: contextlib.ExitStack) -> tuple[Selection, Plan]:
    """The images and the plan of a run that is resumed.

    Args:
        asked: as :func:`convit.training.options.asked_from` makes it: ``resume`` is the folder; options that are not
            given are as in its ``config.yaml``. Options that do not change the result (:data:`MAY_CHANGE`) are taken
            from here; all others must be unchanged.
        world: the processes that continue it.
        held: closed at the end, with the lock on the folder in it.

    Raises:
        InputError: no run, or something of it that was changed: an option, the split, the classes, the images, the
            weights that it starts from.
    """
    assert asked.resume is not None
    folder = RunFolder(asked.resume)
    folder.check_run()
    if world.main:
        held.enter_context(folder.locked())
    plan = folder.read_plan()
    _check_model(folder)
    _check_options(folder, plan, asked)
    plan = replace(plan, options=_moved(plan.options, asked, folder.path))
    return _images(folder, plan, world), plan


def _check_model(folder: RunFolder) -> None:
    """The best model so far, which the run may never surpass, is there if an epoch is complete."""
    if any(not path.name.startswith("epoch-0000-") for path in states(folder.checkpoints)):
        for name in (MODEL_CONFIG, WEIGHTS):
            if not (folder.path / name).is_file():
                raise InputError(
                    f"{folder.path}: no {name} in it, of the best model so far; expected what 'convit train' wrote, "
                    f"or a new run: --config {folder.path / CONFIG} and another --out"
                )


def _check_options(folder: RunFolder, plan: Plan, asked: Asked) -> None:
    """``config.yaml``, and what this call asks for, say what the plan says."""
    if asked.out is not None and absolute(asked.out) != absolute(folder.path):
        raise InputError(
            f"out: got {asked.out} with --resume {folder.path}, expected none: a run goes on in its own folder"
        )
    written, planned = folder.read_options().to_dict(), plan.options.to_dict()
    if differs := first_difference(planned, written):
        name, was, now = differs
        raise InputError(f"{folder.path / CONFIG}: {name} is {now}, the run began with {was}; {AS_IT_WAS}")
    for name, value in asked.to_dict().items():
        if name in PLACES and value is not None:
            value = str(absolute(Path(value)))
        as_asked_or_decided = (plan.given.get(name, planned[name]), planned[name])
        if name not in MAY_CHANGE and value not in as_asked_or_decided:
            word = name.replace("_", "-")
            raise InputError(f"{word}: got {value}, the run in {folder.path} began with {planned[name]}; {AS_IT_WAS}")
    classes = list(plan.class_names)
    if (folder.path / MODEL_CONFIG).is_file() and (now := list(read_config(folder.path).class_names)) != classes:
        other = next(((a, b) for a, b in zip(classes, now, strict=False) if a != b), (len(classes), len(now)))
        raise InputError(
            f"{folder.path / MODEL_CONFIG}: class {other[1]!r}, the run began with {other[0]!r}; {AS_IT_WAS}"
        )


def _moved(options: Asked, asked: Asked, out: Path) -> Asked:
    """The options of the run with those that may change as they are asked for now."""
    now = {name: getattr(asked, name) for name in MAY_CHANGE}
    return replace(options, **{**now, "out": out, "resume": None, "overwrite": False})


def _images(folder: RunFolder, plan: Plan, world: World) -> Selection:
    """The images that were chosen when the run began, none of them decoded; their notes are what is new since then."""
    split, record = folder.read_split(), folder.read_record()
    if fingerprint(record) != plan.sources.get("images"):
        raise InputError(f"{folder.path / RECORD}: changed since the run began; expected it as 'convit train' wrote it")
    recorded = {name: images["names"] for name, images in record["splits"].items()}
    if split != recorded:
        raise InputError(f"{folder.path / SPLIT}: {_moved_image(recorded, split)}; {AS_IT_WAS}")
    assert plan.options.data is not None
    choice = learning(plan.options, folder.read_skipped(), recorded=split)
    selection = world.in_turn(partial(select, plan.options.data, choice))
    if change := first_change(record, selection.record):
        raise InputError(
            f"{plan.options.data}: other images than when the run in {folder.path} started: {change}; expected the same"
        )
    _check_weights(folder, plan, "teacher_weights", plan.options.teacher_weights)
    if not states(folder.checkpoints):  # else all is in the state
        _check_weights(folder, plan, "weights", plan.options.weights)
    new = [note for note in selection.notes if note not in plan.facts.notes]
    if selection.available > plan.facts.available:  # of a subset: in other runs new images are refused
        more = selection.available - plan.facts.available
        new.append(f"{counted(more, 'image')} to learn from came since the run began: only a new run takes them in")
    return replace(selection, notes=tuple(new))


def _moved_image(before: Mapping[str, Sequence[str]], now: Mapping[str, Sequence[str]]) -> str:
    """Which image is in another split than it was, in words."""
    was, there = ({name: split for split, names in splits.items() for name in names} for splits in (before, now))
    for name, split in there.items():
        if was.get(name) != split:
            return f"{name!r} is in {split}, was in {was.get(name, 'no split')} when the run began"
    gone = [name for name in was if name not in there]
    return (
        f"{gone[0]!r} is in no split, was in {was[gone[0]]} when the run began" if gone else "another order of images"
    )


def _check_weights(folder: RunFolder, plan: Plan, name: str, path: Path | None) -> None:
    word = name.replace("_", "-")
    if path is not None and not path.exists():
        raise InputError(f"{word}: no such file or folder {path}; expected what the run in {folder.path} started with")
    if path is not None and fingerprint_of_weights(path) != plan.sources.get(name):
        raise InputError(f"{word}: {path} is not what it was when the run in {folder.path} started; expected the same")
