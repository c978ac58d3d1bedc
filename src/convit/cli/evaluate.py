"""``convit evaluate RUN DATA``: how good a run is on labelled images."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from convit.answers import thresholds
from convit.classifier import Classifier
from convit.cli.console import Console
from convit.cli.options.evaluate import EvaluateCommand
from convit.cli.output import left_out_lines, print_or_write_json
from convit.cli.runs import load_run
from convit.cli.screen import Screen
from convit.data import ImageSet
from convit.data.images import ignored_notes
from convit.data.select import Evaluating, Known, Selection, select
from convit.errors import InputError, counted
from convit.events import Advanced, Listener, PassBegan, Said
from convit.files import absolute, check_apart, check_output, composed, numbered, others_in, printable
from convit.intervals import short_interval
from convit.training import unsure
from convit.training.comparison import Comparison, write_comparison
from convit.training.evaluation import Evaluation, logits_of, score
from convit.training.evaluation_files import RESULT, write_evaluation
from convit.training.mistakes import mistakes, reliability, table
from convit.training.run_folder import RunFolder


def main(options: EvaluateCommand) -> int:
    """Evaluates, prints, and writes numbers and pictures. Returns 1 if images that do not decode are not counted."""
    selection = _compare(options) if len(options.run) == 2 else _evaluate(options)
    if not selection.left_out or options.skip_bad:
        return 0
    bad, whole = len(selection.left_out), selection.available + len(selection.left_out)
    print(
        f"convit evaluate: {bad} of {whole} images do not decode and are not counted; expected all to, or --skip-bad",
        file=sys.stderr,
    )
    return 1


def _evaluate(options: EvaluateCommand) -> Selection:
    """One run: a table of its classes, and a folder of results. Returns the images."""
    (run,) = options.run
    with Screen(stderr=True) as screen:
        classifier, known, selection = _selected(run, options, screen)
        ((split, images),) = selection.splits.items()
        out = _place(options, selection, split, screen)
        thresholds(classifier.calibration, options.reject, options.coverage)  # refused before the work
        _tell_notes(selection, screen)
        out.mkdir(parents=True, exist_ok=True)
        logits = _logits(images, classifier, options, screen)
    result, answers = _scored(logits, images, classifier)
    bad, wrong = selection.left_out, mistakes(answers, images)
    own = split == "val" or known.root == selection.root
    validated = set(map(composed, known.split.get("val", ()))) if own else set()
    fitted_here = not validated.isdisjoint(map(composed, images.names))
    reliable = reliability(answers, classifier.calibration, fitted_here=fitted_here)
    more = unsure.measured(
        logits,
        images.targets,
        result.class_names,
        classifier.calibration,
        reject=options.reject,
        coverage=options.coverage,
    )
    written = write_evaluation(
        out,
        result,
        wrong,
        images,
        reliable,
        data=selection.name,
        root=selection.root,
        split=split,
        say=lambda text: screen(Said(text)),
        left_out=bad,
        more=more,
    )
    document = {"run": str(run), "data": options.data, "split": split, **result.to_dict()}
    document |= {"calibration": reliable.to_dict(), **more, **_left_out(selection)}
    if not print_or_write_json(document, options.json):
        _show(result, f"{selection.name}, {split} images", classifier.model_name)
        print(*map(printable, (*reliable.lines(), *unsure.lines(more))), sep="\n")
        print(f"written to {printable(str(out))}: {', '.join(written)}")
    return selection


def _compare(options: EvaluateCommand) -> Selection:
    """Two runs: their accuracies and McNemar's test. Returns the images."""
    with Screen(stderr=True) as screen:
        classifier, _, selection = _selected(options.run[0], options, screen)
        other, _, of_other = _selected(options.run[1], options, screen, check=False)
        ((split, images),) = selection.splits.items()
        _check_same(options, selection, of_other)
        if options.out is not None:
            check_output("out", options.out, folder=True)
            if _others_in(options.out, "") is not None:
                raise InputError(f"out: got {options.out}, which has the results of one run; expected another one")
        _tell_notes(selection, screen)
        for note in of_other.notes:
            if note not in selection.notes:
                screen(Said(f"{options.run[1]}: {note}"))
        found = []
        for model in (classifier, other):
            own = images.with_classes(model.class_names)
            found.append(_scored(_logits(own, model, options, screen), own, model))
    (first, second), tables = zip(*found, strict=True)
    results = (first, second)
    comparison = Comparison.of(*(table[:, 3] == 0 for table in tables))
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        written = write_comparison(options.out, comparison, results, tables, images)
    runs = [{"run": str(run), **one.to_dict()} for run, one in zip(options.run, results, strict=True)]
    document = {"data": options.data, "split": split, "runs": runs, **comparison.to_dict(), **_left_out(selection)}
    if not print_or_write_json(document, options.json):
        print(printable(f"{selection.name}, {split} images: {len(images)}"))
        for run, one, model in zip(options.run, results, (classifier, other), strict=True):
            print(printable(f"{run}: {one.accuracy}, loss {one.loss:.4f}, {model.model_name}"))
        print(comparison.line())
        if options.out is not None:
            print(f"written to {printable(str(options.out))}: {', '.join(written)}")
    return selection


def _selected(
    run: Path, options: EvaluateCommand, screen: Screen, *, check: bool = True
) -> tuple[Classifier, Known, Selection]:
    """The model of a run, what is known of its images, and the images to evaluate it on."""
    classifier = load_run(run, options.device, options.views)
    known = RunFolder(run).known()
    choice = Evaluating(
        split=options.split,
        known=known,
        data_root=options.data_root,
        check=check,
        full_scale=classifier.preprocess.full_scale,
        tell=screen,
    )
    selection = select(options.data, choice)
    if options.out is not None:
        check_apart("out", options.out, (Path(selection.root), *known.places))
    return classifier, known, selection


def _tell_notes(selection: Selection, tell: Listener) -> None:
    for note in (*ignored_notes(selection.ignored), *selection.notes, *left_out_lines(selection.left_out)):
        tell(Said(note))


def _logits(images: ImageSet, classifier: Classifier, options: EvaluateCommand, tell: Listener) -> Tensor:
    tell(PassBegan("evaluating", len(images)))
    return logits_of(
        classifier.model,
        images,
        classifier.preprocess,
        workers=options.workers,
        on_batch=lambda count: tell(Advanced(count)),
    )


def _scored(logits: Tensor, images: ImageSet, classifier: Classifier) -> tuple[Evaluation, NDArray[np.float64]]:
    """The evaluation, and the :func:`convit.training.mistakes.table` of each image."""
    result = score(logits / classifier.temperature, images.targets, images.class_names)
    return result, table(logits, images.targets, classifier.calibration)


def _check_same(options: EvaluateCommand, first: Selection, second: Selection) -> None:
    """Raises :class:`InputError` where two runs would be evaluated on different images."""
    ((split, images),), ((other_split, others),) = first.splits.items(), second.splits.items()
    bad = {image.name for image in first.left_out}
    if {*images.names} == {*others.names} - bad:
        return
    raise InputError(
        f"data: {options.run[0]} would be evaluated on {len(images)} {split} images, {options.run[1]} on {len(others)} "
        f"{other_split} images, not the same ones; expected --split all, or images that neither learned from"
    )


def _left_out(selection: Selection) -> dict[str, Any]:
    bad = selection.left_out
    return {"left_out": [{"image": image.name, "reason": image.reason} for image in bad]} if bad else {}


def _place(options: EvaluateCommand, selection: Selection, split: str, tell: Listener) -> Path:
    """The folder of the results: ``--out``, or one in the run whose name has a number where other images have it.

    Raises:
        InputError: the run's own folder, one with the results of other images, or one that cannot be written to.
    """
    (run,) = options.run
    views = "-flip" if options.views == "flip" else ""
    own = run / f"evaluation-{Path(selection.name).name}-{split}{views}"
    out = options.out or own
    if absolute(out) == absolute(run):
        raise InputError(f"out: got the run's own folder {out}, expected another one")
    check_output("out", out, folder=True)
    others = _others_in(out, selection.root)
    if others is None:
        return out
    if options.out is not None:
        raise InputError(
            f"out: got {out}, which has the results of {others}; expected another one for {selection.root}"
        )
    out = numbered(own, lambda place: _others_in(place, selection.root) is not None)
    tell(Said(f"{own} has the results of {others}: those of {selection.root} go to {out.name}"))
    return out


def _others_in(folder: Path, root: str) -> str | None:
    return others_in(folder / RESULT, root, "evaluation of ours")


def _show(result: Evaluation, title: str, model: str) -> None:
    """A line for each class, and one for all of them."""
    console = Console()
    table = Table(box=None, pad_edge=False)
    table.add_column("class", overflow="ellipsis", max_width=40)
    for heading in ("images", "precision", "recall (95% interval)", "most often taken for"):
        table.add_column(heading, justify="left" if heading.startswith("most") else "right")
    for i, name in enumerate(result.class_names):
        row = result.confusion[i].copy()
        images, row[i] = int(row.sum()), 0
        rate = 100 * int(result.confusion[i, i]) / max(1, images)
        cells = (
            name,
            str(images),
            f"{result.precision[i]:.1%}" if result.confusion[:, i].any() else "-",
            f"{rate:.1f}% ({short_interval(rate, images)})" if images else "-",
            f"{result.class_names[row.argmax()]} ({row.max()})" if row.any() else "",
        )
        table.add_row(*(escape(printable(cell)) for cell in cells))  # a user's square brackets are no markup
    console.print(table)
    figures = f"{result.accuracy}, loss {result.loss:.4f}, {counted(result.num_images, 'image')}, {model}"
    console.print(f"{printable(title)}: {figures}", markup=False, soft_wrap=True)
