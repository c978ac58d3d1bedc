"""What a run learns from, and what tells it from every other run: kept in its folder, compared when it goes on."""

import hashlib
from pathlib import Path
from typing import Any

from convit.classifier import CONFIG, WEIGHTS
from convit.data import ImageSet, describe, digest, first_change, first_changed_name
from convit.errors import InputError
from convit.train.plan import Plan
from convit.train.run_folder import IDENTITY, RunFolder, split_names, unreadable


def identify(plan: Plan, parts: dict[str, ImageSet | None]) -> dict[str, Any]:
    """What ``identity.json`` says: the images (:func:`convit.data.describe`), the teacher's weights, and ``run``.

    The latter stands for all of it and for the options, so two runs share it only if they are the same run. Where they
    lie, and what may differ when a run goes on, is not in it.
    """
    there = {part: images for part, images in parts.items() if images is not None}
    learned = {**describe(plan.class_names, there), "teacher": _teacher(plan.config.distill.teacher_weights)}
    options = plan.config.to_dict()
    options["run"] = {"seed": options["run"]["seed"]}
    del options["data"], options["source"]["workers"], options["source"]["data_root"]
    return learned | {"run": digest([options, split_names(parts), learned])}


def identity_before(folder: RunFolder, plan: Plan, parts: dict[str, ImageSet | None]) -> dict[str, Any]:
    """The identity of a run that goes on, which has to learn from what it did.

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
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise unreadable(folder.path / IDENTITY, error) from error
    if change is not None:
        raise InputError(
            f"{plan.config.data}: other images than when the run in {folder.path} started: {change}; expected the same"
        )
    if teacher != now["teacher"]:
        raise InputError(
            f"teacher-weights: {plan.config.distill.teacher_weights} is not what it was when the run in {folder.path} "
            "started; expected the same"
        )
    return before


def _teacher(path: Path | None) -> str | None:
    """A digest of the teacher's weights, and of what says how they are used; None where no file is read."""
    if path is None:
        return None
    whole = hashlib.sha256()
    for file in (path / CONFIG, path / WEIGHTS) if path.is_dir() else (path,):
        if file.is_file():  # whoever loads it says what is missing
            with file.open("rb") as stream:
                whole.update(hashlib.file_digest(stream, "sha256").digest())
    return whole.hexdigest()[:16]
