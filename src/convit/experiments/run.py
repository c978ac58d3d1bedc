"""An experiment from beginning to end: settle, make the runs, report."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from convit.choices import Device
from convit.classifier_folder import WEIGHTS
from convit.data.record import describe
from convit.data.select import Selection
from convit.device import pick_device
from convit.errors import InputError
from convit.experiments.folder import NOT_RESULTS, ExperimentFolder, code_identity
from convit.experiments.grid import Listener, run_cells
from convit.experiments.results import Result, read_result
from convit.experiments.settings import Settings, SharedOptions
from convit.experiments.settle import selected, settle
from convit.experiments.studies import STUDIES
from convit.experiments.study import Report, Study
from convit.experiments.tables import chosen
from convit.figures import save
from convit.files import absolute, check_output, fingerprint, fingerprint_of_files, write
from convit.intervals import wilson_interval
from convit.options import options_of
from convit.training.stopping import stop_on_signals


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What an experiment gave."""

    markdown: str
    folder: Path
    results: list[Result]


def run_experiment(
    asked: Settings,
    out: Path | None = None,
    *,
    jobs: int = 1,
    overwrite: bool = False,
    tell: Listener = lambda event: None,
) -> Outcome:
    """Makes the runs that are not there yet, then tables and pictures of all that the settings ask for.

    Args:
        asked: what to run.
        out: the folder, by default ``experiments/NAME-DATA``; an experiment that is there goes on, if code, data and
            settings are the same.
        jobs: runs at once.
        overwrite: replace the experiment that is there.
        tell: is told how it goes on.

    Raises:
        InputError: settings that do not work, or the folder is of another experiment, before anything is written; or
            runs failed.
        StoppedGrid: Ctrl-C or SIGTERM; the runs are saved.
    """
    out = out or Path("experiments") / f"{asked.name}-{Path(asked.data).name}"
    check_output("out", out, folder=True)
    study, settings, folder = STUDIES[asked.name], settle(asked), ExperimentFolder(out)
    selection = selected(settings)
    if Path(selection.root).is_absolute() and absolute(out).is_relative_to(selection.root):
        raise InputError(f"out: got {out}, which lies among the images in {selection.root}; expected a folder apart")
    device = cast(Device, pick_device(settings.device).type)
    settings = replace(settings, data=selection.root, device=device)
    cells = study.cells(settings)
    identity = _identity(settings, selection, skip_test=cells[0].asked.skip_test)
    threads = study.threads or max(1, torch.get_num_threads() // jobs)
    with folder.locked() as lock:
        folder.prepare(identity, overwrite=overwrite)
        cells = list(map(study.prepare(settings, out, tell), cells))
        with stop_on_signals() as stop:
            failed = run_cells(cells, folder, jobs=jobs, threads=threads, lock=lock, tell=tell, stop=stop)
        results = [read_result(cell, folder.run(cell)) for cell in cells if cell.name not in failed]
        results = [replace(result, measured=study.measure(settings, result)) for result in results]
        folder.write_results(identity, results)
        if failed:
            name, why = next(iter(failed.items()))
            raise InputError(
                f"{len(failed)} of {len(cells)} runs failed, so there is no table; the first, {name}: {why}; the same "
                "command tries them again"
            )
        report = report_of(study, settings, results)
        for name, figure in report.figures.items():
            save(figure, out / f"{name}.png")
        title = f"# {study.title[0].upper()}{study.title[1:]}"
        text = "\n\n".join([title, _caption(study, settings, results), *report.tables])
        write(out / "table.md", text + "\n")
    return Outcome(markdown=text, folder=out, results=results)


def _identity(settings: Settings, selection: Selection, *, skip_test: bool) -> dict[str, Any]:
    """What results must share to stand in one table; the grid may grow."""
    source, weights = selection.source, settings.teacher_weights
    if weights is not None:
        file = weights / WEIGHTS if weights.is_dir() else weights
        teacher = fingerprint_of_files(file) if file.is_file() else str(weights)  # for the run to refuse
    shared = [option.name for option in options_of(SharedOptions) if option.name not in NOT_RESULTS]
    return {
        "experiment": settings.name,
        "code": code_identity(),
        "data": {
            "root": source.root,
            "images": {split: len(images) for split, images in source.splits.items()},
            "fingerprint": fingerprint(describe(source.class_names, source.splits)),
        },
        "settings": {name: getattr(settings, name) for name in ("epochs", *shared, "teacher")}
        | {"teacher_weights": weights and teacher, "skip_test": skip_test},
    }


def report_of(study: Study, settings: Settings, results: Sequence[Result]) -> Report:
    """What a study reports: of all models, or of each, under its name if there are several."""
    if study.together or len(settings.models) == 1:
        return study.report(settings, results)
    whole = Report([], {})
    for model in settings.models:
        report = study.report(replace(settings, models=(model,)), chosen(results, model=model))
        whole.tables.extend(f"**{model}**\n\n{table}" for table in report.tables)
        whole.figures.update({f"{k}-{model.removeprefix('convit_')}": v for k, v in report.figures.items()})
    return whole


def _caption(study: Study, settings: Settings, results: Sequence[Result]) -> str:
    """What the numbers are of."""
    first, seeds = results[0], ", ".join(map(str, settings.seeds))
    images = f"{first.images} test images, read once, at the end; each run's best epoch is chosen on validation images"
    if first.split == "val":
        why = "the test split is not read" if first.config["skip_test"] else "there is no test split"
        images = f"{first.images} validation images, which also chose each run's best epoch: {why}"
    epochs = sorted({result.epochs for result in results})
    length = " to ".join(map(str, epochs[:1] + epochs[1:][-1:]))
    over = f"mean ± standard error over the seeds {seeds}" if len(settings.seeds) > 1 else f"seed {seeds}"
    low, high = wilson_interval(first.images // 2, first.images)
    chance = f"the 95% interval of one accuracy on so many images is about ± {50 * (high - low):.1f} points"
    paper = "" if study.paper is None else " Columns in italics are the paper's figures: another data set."
    return (
        f"{Path(settings.data).name}: accuracy in percent on {images}. {', '.join(settings.models)}; {length} epochs; "
        f"{over}; {chance}.{paper}"
    )
