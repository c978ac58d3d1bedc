"""What a run learns from, and what tells it from every other run: kept in its folder, compared when it goes on."""

import hashlib
from pathlib import Path
from typing import Any

from convit.classifier import CONFIG, WEIGHTS
from convit.data import ImageSet, describe, digest, first_change, first_changed_name
from convit.errors import InputError
from convit.train.plan import Plan
from convit.train.run_folder import IDENTITY, RunFolder, split_names, unreadable
from convit.train.state import states


def identify(plan: Plan, parts: dict[str, ImageSet | None]) -> dict[str, Any]:
    """What ``identity.json`` says: the images (:func:`convit.data.describe`), the weights to start from, the teacher's,
    and ``run``.

    The latter stands for all of it and for the options, so two runs share it only if they are the same run. Where they
    lie, and what may differ when a run goes on, is not in it.
    """
    there = {part: images for part, images in parts.items() if images is not None}
    learned = describe(plan.class_names, there)
    learned["weights"] = _weights(plan.config.model.weights)
    learned["teacher"] = _weights(plan.config.distill.teacher_weights)
    options = plan.config.to_dict()
    options["run"] = {"seed": options["run"]["seed"]}
    del options["data"], options["source"]["workers"], options["source"]["data_root"]
    del options["model"]["weights"], options["distill"]["teacher_weights"]
    return learned | {"run": digest([options, split_names(parts), learned])}


def identity_before(folder: RunFolder, plan: Plan, parts: dict[str, ImageSet | None]) -> dict[str, Any]:
    """The identity of a run that goes on, which has to learn from what it did. The weights that it started from count
    until it has a state.

    Of a run that an earlier version began only the names of the images are known; then it is what :func:`identify`
    gives now.

    Raises:
        InputError: it learns from something else; what differs first.
    """
    names, now = split_names(parts), identify(plan, parts)
    split, before = folder.read_split(), folder.read_identity() if folder.has_identity else now
    try:
        change = first_changed_name(split, names) or first_change(before, now, names)
        teacher, _ = before["teacher"], before["run"]
        start = before.get("weights", now["weights"])  # earlier versions did not look at them
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise unreadable(folder.path / IDENTITY, error) from error
    if change is not None:
        raise InputError(
            f"{plan.config.data}: other images than when the run in {folder.path} started: {change}; expected the same"
        )
    _check_weights("teacher-weights", plan.config.distill.teacher_weights, teacher, now["teacher"], folder)
    if not states(folder.checkpoints):
        _check_weights("weights", plan.config.model.weights, start, now["weights"], folder)
    return before


def _check_weights(option: str, path: Path | None, before: str | None, now: str | None, folder: RunFolder) -> None:
    if before == now:
        return
    if path is not None and not path.exists():
        raise InputError(
            f"{option}: no such file or folder {path}; expected what the run in {folder.path} started with"
        )
    raise InputError(f"{option}: {path} is not what it was when the run in {folder.path} started; expected the same")


def _weights(path: Path | None) -> str | None:
    """A digest of weights, and of what says how they are used; None where no file is read."""
    if path is None:
        return None
    whole = hashlib.sha256()
    for file in (path / CONFIG, path / WEIGHTS) if path.is_dir() else (path,):
        if file.is_file():  # whoever loads it says what is missing
            with file.open("rb") as stream:
                whole.update(hashlib.file_digest(stream, "sha256").digest())
    return whole.hexdigest()[:16]
