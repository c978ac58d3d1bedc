"""An experiment from beginning to end: settle, run the grid, make tables and pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from convit.choices import Device
from convit.data import open_source
from convit.device import pick_device
from convit.errors import InputError
from convit.experiments import (
    ablation,
    distillation,
    dynamics,
    locality,
    masking,
    models,
    sample_efficiency,
    small_data,
)
from convit.experiments.cells import Cell, Result
from convit.experiments.folder import ExperimentFolder
from convit.experiments.identity import code_identity, data_identity
from convit.experiments.pool import Listener, run_cells
from convit.experiments.settings import Settings, check_each, decided_model, gpsa_layers
from convit.experiments.study import Study
from convit.figures import save
from convit.train.observer import stop_on_signals

STUDIES: dict[str, Study] = {
    "sample-efficiency": sample_efficiency.STUDY,
    "ablation": ablation.STUDY,
    "locality": locality.STUDY,
    "masking": masking.STUDY,
    "dynamics": dynamics.STUDY,
    "distillation": distillation.STUDY,
    "models": models.STUDY,
    "small-data": small_data.STUDY,
}
AXES = ("fractions", "rows", "strengths", "layers", "teacher", "teacher_weights")
"""Options that not every experiment has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What an experiment gave."""

    markdown: str
    folder: Path
    results: tuple[Result, ...]


def settle(name: str, data: str, given: Mapping[str, Any], *, preset: str | None = None) -> Settings:
    """Settings with the study's own for what is not given.

    Args:
        name: of the study.
        data: as for ``convit train``.
        given: fields of :class:`Settings`; None for those that are left open.
        preset: ``"paper"`` for the published values.

    Raises:
        InputError: an option that the study does not have, or a value out of range.
    """
    study = STUDIES[name]
    for axis in AXES:
        if axis not in study.axes and given.get(axis) is not None:
            there = ", ".join(f"--{own.replace('_', '-')}" for own in study.axes) or "none of these"
            raise InputError(f"{axis.replace('_', '-')}: got it for {name}, expected {there}")
    if preset == "paper" and study.paper is None:
        raise InputError(f"preset: got paper for {name}, expected none: it is not an experiment of the paper")
    own = study.digits if preset is None or study.paper is None else study.paper
    if preset is None and data != "digits":  # its axes; how long and in which batches depends on the data
        own = {key: value for key, value in own.items() if key not in ("epochs", "batch_size")}
    asked = {key: value for key, value in given.items() if value is not None}
    if empty := [key for key, value in asked.items() if value == ()]:
        raise InputError(f"{empty[0]}: got nothing, expected one value or more")
    settings = Settings(data=data, **{"models": (), **own, **asked})
    if "teacher" in study.axes and settings.teacher is None and settings.teacher_weights is None:
        raise InputError(f"teacher: got none for {name}, expected --teacher NAME of timm's, or --teacher-weights RUN")
    _check(study, settings)
    if not settings.models:
        settings = replace(settings, models=(decided_model(settings),))
    depths = [gpsa_layers(model) for model in settings.models]
    if "layers" in study.axes and not settings.layers:
        settings = replace(settings, layers=_layers(name, min(depths)))
    if "layers" in study.axes:
        check_each("layers", settings.layers, 0 if name == "locality" else 1, min(depths))
    return settings


def _layers(name: str, depth: int) -> tuple[int, ...]:
    """0 to all GPSA layers in four steps to start with, as in the paper; all but none of them to mask."""
    steps = sorted({round(depth * part / 3) for part in range(4)})
    return tuple(step for step in steps if step or name == "locality")


def _check(study: Study, settings: Settings) -> None:
    check_each("seeds", settings.seeds, 0, 2**32)
    check_each("fractions", settings.fractions, 1e-6, 1.0)
    if settings.strengths:
        check_each("strengths", settings.strengths, 1e-6, 1e6)
    for name in ("models", "rows"):
        values = getattr(settings, name)
        if len(set(values)) != len(values):
            raise InputError(f"{name}: got {' '.join(values)}, expected each once")
    settings.config(None, 0)  # checks the ranges of what goes to each run
    if unknown := [row for row in settings.rows if row not in study.rows]:
        raise InputError(f"rows: got {unknown[0]}, expected some of {', '.join(study.rows)}")
    if study.base is not None and study.base not in settings.rows:
        raise InputError(f"rows: got {' '.join(settings.rows)}, expected {study.base} too, to compare with")


def run_experiment(
    name: str, settings: Settings, out: Path, *, jobs: int = 1, overwrite: bool = False, listener: Listener
) -> Outcome:
    """Makes the runs that are not there yet, then tables and pictures of all that the settings ask for.

    Args:
        name: of the study, one of ``STUDIES``.
        settings: what to run.
        out: the folder; an experiment that is there goes on, if code, data and settings are the same.
        jobs: runs at once.
        overwrite: replace the experiment that is there.
        listener: is told how it goes on.

    Raises:
        InputError: the folder is of another experiment, or runs failed.
        StoppedGrid: Ctrl-C or SIGTERM; the runs are saved.
    """
    study, folder = STUDIES[name], ExperimentFolder(out)
    source = open_source(settings.data, root=settings.data_root, missing=settings.skip_bad)
    settings = replace(settings, data=source.root, device=_kind(settings.device))
    identity = {
        "experiment": name,
        "code": code_identity(),
        "data": data_identity(source),
        "settings": settings.shared(),
    }
    cells = study.cells(settings)
    if out.resolve().is_relative_to(Path(source.root)) and Path(source.root).is_absolute():
        raise InputError(f"out: got {out}, which lies among the images in {source.root}; expected a folder apart")
    with folder.locked() as lock:
        folder.prepare(identity, overwrite=overwrite)
        done = {cell.name: folder.done(cell) for cell in cells}
        pending = [cell for cell in cells if done[cell.name] is None]
        listener.begin(len(cells), len(cells) - len(pending))
        failed: dict[str, str] = {}
        if pending:
            log = out / "log.txt"
            with stop_on_signals() as stop:
                failed = run_cells(pending, folder.runs, jobs=jobs, log=log, lock=lock, listener=listener, stop=stop)
        results = [result for cell in cells if (result := folder.done(cell))]
        folder.write_results(identity, results)
        _refuse_failed(failed, cells)
        return _report(study, settings, results, folder)


def _kind(device: Device) -> Device:
    """What ``auto`` stands for on this machine."""
    return cast(Device, pick_device(device).type)


def _refuse_failed(failed: Mapping[str, str], cells: Sequence[Cell]) -> None:
    if failed:
        name, why = next(iter(failed.items()))
        raise InputError(
            f"{len(failed)} of {len(cells)} runs failed, so there is no table; the first, {name}: {why}; the same "
            "command tries them again"
        )


def _report(study: Study, settings: Settings, results: Sequence[Result], folder: ExperimentFolder) -> Outcome:
    """Writes tables and pictures."""
    report = study.report(settings, results, folder.runs)
    for name, figure in report.figures.items():
        save(figure, folder.path / f"{name}.png")
    text = "\n\n".join(
        (f"# {study.title[0].upper()}{study.title[1:]}", _caption(study, settings, results), *report.tables)
    )
    folder.write("table.md", text + "\n")
    return Outcome(markdown=text, folder=folder.path, results=tuple(results))


def _caption(study: Study, settings: Settings, results: Sequence[Result]) -> str:
    """What the numbers are of."""
    first, seeds = results[0], ", ".join(map(str, settings.seeds))
    images = f"{first.images} test images, read once, at the end; each run's best epoch is chosen on validation images"
    if first.part == "val":
        why = "the test part is not read" if first.config["source"]["skip_test"] else "there is no test part"
        images = f"{first.images} validation images, which also chose each run's best epoch: {why}"
    epochs = {result.epochs for result in results}
    length = f"{min(epochs)} epochs" if len(epochs) == 1 else f"{min(epochs)} to {max(epochs)} epochs"
    several = len(settings.seeds) > 1
    over = f"mean ± standard error over the seeds {seeds}" if several else f"seed {seeds}"
    caption = (
        f"{Path(settings.data).name}: accuracy in percent on {images}. {', '.join(settings.models)}; {length}; {over}."
    )
    if study.paper is None:
        return caption
    return f"{caption} Columns in italics are the paper's figures: another data set."
