"""``convit evaluate RUN DATA``: how good a run is on labelled images."""

import itertools
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from convit.cli.options.evaluate import EvaluateCommand
from convit.cli.output import left_out_lines, print_or_write_json
from convit.cli.runs import load_run
from convit.cli.screen import Screen
from convit.data.images import ignored_notes
from convit.data.select import Evaluating, Selection, select
from convit.errors import InputError
from convit.events import Advanced, Listener, PassBegan, Said
from convit.files import absolute, check_apart, check_output, composed, printable
from convit.training import Evaluation, evaluate
from convit.training.evaluation_files import others_in, write_evaluation
from convit.training.mistakes import Answers
from convit.training.run_folder import RunFolder


def main(options: EvaluateCommand) -> int:
    """Evaluates, prints, and writes numbers and pictures. Returns 1 if images that do not decode are not counted."""
    with Screen(stderr=True) as screen:
        classifier = load_run(options.run, options.device)
        known = RunFolder(options.run).known()
        choice = Evaluating(
            split=options.split,
            known=known,
            data_root=options.data_root,
            full_scale=classifier.preprocess.full_scale,
            tell=screen,
        )
        selection = select(options.data, choice)
        bad = selection.left_out
        ((split, images),) = selection.splits.items()
        if options.out is not None:
            check_apart("out", options.out, (Path(selection.root), *known.places))
        out = _place(options, selection, split, screen)
        for note in (*ignored_notes(selection.ignored), *selection.notes, *left_out_lines(bad)):
            screen(Said(note))
        out.mkdir(parents=True, exist_ok=True)
        screen(PassBegan("evaluating", len(images)))
        answers = Answers(classifier.calibration)
        result = evaluate(
            classifier.model,
            images,
            classifier.preprocess,
            workers=options.workers,
            temperature=classifier.temperature,
            on_batch=lambda count: screen(Advanced(count)),
            on_logits=answers.add,
        )
    wrong, of = answers.mistakes(images), {"data": selection.name, "root": selection.root, "split": split}
    fitted_here = not set(map(composed, known.split.get("val", ()))).isdisjoint(map(composed, images.names))
    reliability = answers.reliability(len(images), fitted_here=fitted_here)
    written = write_evaluation(out, result, wrong, images, reliability, left_out=bad, **of)
    if options.json:
        named = {"left_out": [{"image": image.name, "reason": image.reason} for image in bad]} if bad else {}
        document = {"run": str(options.run), "data": options.data, "split": split, **result.to_dict()}
        document |= {"calibration": reliability.to_dict(), **named}
        print_or_write_json(document, options.json)
    if options.json != "-":
        _show(result, f"{selection.name}, {split} images", classifier.model_name)
        print(*reliability.lines(), sep="\n")
        print(f"written to {printable(str(out))}: {', '.join(written)}")
    if not bad or options.skip_bad:
        return 0
    print(
        f"convit evaluate: {len(bad)} of {len(images) + len(bad)} images do not decode and are not counted; "
        "expected all to, or --skip-bad",
        file=sys.stderr,
    )
    return 1


def _place(options: EvaluateCommand, selection: Selection, split: str, tell: Listener) -> Path:
    """The folder of the results: ``--out``, or one in the run whose name has a number where other images have it.

    Raises:
        InputError: the run's own folder, one with the results of other images, or one that cannot be written to.
    """
    own = options.run / f"evaluation-{Path(selection.name).name}-{split}"
    out = options.out or own
    if absolute(out) == absolute(options.run):
        raise InputError(f"out: got the run's own folder {out}, expected another one")
    check_output("out", out, folder=True)
    others = others_in(out, selection.root)
    if others is None:
        return out
    if options.out is not None:
        raise InputError(
            f"out: got {out}, which has the results of {others}; expected another one for {selection.root}"
        )
    numbered = (own.with_name(f"{own.name}-{number}") for number in itertools.count(2))
    out = next(place for place in numbered if others_in(place, selection.root) is None)
    tell(Said(f"{own} has the results of {others}: those of {selection.root} go to {out.name}"))
    return out


def _show(result: Evaluation, title: str, model: str) -> None:
    """A line for each class, and one for all of them."""
    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False)
    table.add_column("class", overflow="ellipsis", max_width=40)
    for heading in ("images", "precision", "recall", "most often taken for"):
        table.add_column(heading, justify="left" if heading.startswith("most") else "right")
    for i, name in enumerate(result.class_names):
        row = result.confusion[i].copy()
        images, row[i] = int(row.sum()), 0
        cells = (
            name,
            str(images),
            f"{result.precision[i]:.1%}" if result.confusion[:, i].any() else "-",
            f"{result.recall[i]:.1%}" if images else "-",
            f"{result.class_names[row.argmax()]} ({row.max()})" if row.any() else "",
        )
        table.add_row(*(escape(printable(cell)) for cell in cells))  # a user's square brackets are no markup
    console.print(table)
    figures = f"{result.accuracy}, loss {result.loss:.4f}, {result.num_images} images, {model}"
    console.print(f"{printable(title)}: {figures}", markup=False, soft_wrap=True)
