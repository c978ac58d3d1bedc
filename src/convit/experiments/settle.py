"""From what is asked of an experiment to settings with nothing left open but what each run decides."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from convit.data.select import Selection, select
from convit.errors import InputError
from convit.experiments.settings import Settings
from convit.experiments.studies import STUDIES
from convit.experiments.study import Study, asked
from convit.models import create_model
from convit.training.options import Asked
from convit.training.planning import learning, make_plan
from convit.training.teacher import check_name

AXES = ("fractions", "rows", "rates", "strengths", "layers", "teacher", "teacher_weights")
"""Options that not every experiment has."""
ALWAYS = {"seeds": (0,), "fractions": (1.0,)}
OPEN = (None, ())


def settle(settings: Settings) -> Settings:
    """Settings with the study's own for what is open. Opens the data only if no model is named.

    Raises:
        InputError: an option that the study does not have, or a value out of range.
    """
    study = STUDIES[settings.name]
    own = ALWAYS | _own(study, settings)
    settings = replace(settings, **{key: value for key, value in own.items() if getattr(settings, key) in OPEN})
    _check(study, settings)
    if not settings.models:
        decided = make_plan(_any_run(settings), selected(settings).facts()).options.model
        settings = replace(settings, models=(str(decided),))
    depth = min(create_model(model, device="meta").local_up_to_layer for model in settings.models)
    if "layers" in study.axes:  # in four steps from 0 to all of them, as in the paper
        steps = sorted({step for part in range(4) if (step := round(depth * part / 3)) >= study.layers_from})
        settings = replace(settings, layers=settings.layers or tuple(steps))
        if wrong := [layers for layers in settings.layers if not study.layers_from <= layers <= depth]:
            raise InputError(f"layers: got {wrong[0]}, expected {study.layers_from} to {depth}")
    return settings


def selected(settings: Settings) -> Selection:
    """The images of the runs with the first seed, before a fraction of them is taken."""
    return select(settings.data, learning(_any_run(settings)))


def _any_run(settings: Settings) -> Asked:
    return asked(settings, None, settings.seeds[0])


def _own(study: Study, settings: Settings) -> dict[str, Any]:
    """The study's settings for this data."""
    for axis in AXES:
        if axis not in study.axes and getattr(settings, axis) not in OPEN:
            there = ", ".join(f"--{own.replace('_', '-')}" for own in study.axes) or "none of these"
            raise InputError(f"{axis.replace('_', '-')}: got it for {settings.name}, expected {there}")
    if settings.preset is None:  # its axes; how long and in which batches depends on the data
        skipped = () if settings.data == "digits" else ("epochs", "batch_size")
        return {key: value for key, value in study.digits.items() if key not in skipped}
    if study.paper is None:
        raise InputError(f"preset: got paper for {settings.name}, expected none: it is not an experiment of the paper")
    return dict(study.paper)


def _check(study: Study, settings: Settings) -> None:
    for name in ("models", "seeds", "fractions", "rows", "rates", "strengths", "layers"):
        values: Sequence[object] = getattr(settings, name)
        if len(set(values)) != len(values):
            raise InputError(f"{name}: got {' '.join(map(str, values))}, expected each once")
    if unknown := [row for row in settings.rows if row not in study.rows]:
        raise InputError(f"rows: got {unknown[0]}, expected some of {', '.join(study.rows)}")
    if study.base is not None and study.base not in settings.rows:
        raise InputError(f"rows: got {' '.join(settings.rows)}, expected {study.base} too, to compare with")
    if "teacher" in study.axes and settings.teacher is None and settings.teacher_weights is None:
        raise InputError(
            f"teacher: got none for {settings.name}, expected --teacher NAME of timm's, or --teacher-weights RUN"
        )
    if settings.teacher is not None and settings.teacher_weights is None:  # half of the runs need none, and go first
        check_name(settings.teacher)
