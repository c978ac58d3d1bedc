"""``convit evaluate RUN DATA``: how good a run is on labelled images."""

import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from convit.cli.options.evaluate import EvaluateCommand
from convit.cli.output import left_out_lines, print_or_write_json
from convit.cli.runs import load_run
from convit.cli.screen import Screen
from convit.data.select import Evaluating, select
from convit.errors import InputError
from convit.events import Advanced, PassBegan, Said
from convit.files import absolute, printable, write_csv, write_json
from convit.training import Evaluation, evaluate, plots
from convit.training.mistakes import Answers, write_mistakes
from convit.training.run_folder import RunFolder


def main(options: EvaluateCommand) -> int:
    """Evaluates, prints, and writes numbers and pictures. Returns 1 if images that do not decode are not counted."""
    with Screen(stderr=True) as screen:
        classifier = load_run(options.run, options.device)
        choice = Evaluating(
            split=options.split,
            known=RunFolder(options.run).known(),
            data_root=options.data_root,
            full_scale=classifier.preprocess.full_scale,
            tell=screen,
        )
        selection = select(options.data, choice)
        bad = selection.left_out
        for note in (*selection.notes, *left_out_lines(bad)):
            screen(Said(note))
        ((split, images),) = selection.splits.items()
        out = options.out or options.run / f"evaluation-{Path(selection.name).name}-{split}"
        if absolute(out) == absolute(options.run):
            raise InputError(f"out: got the run's own folder {out}, expected another one")
        out.mkdir(parents=True, exist_ok=True)
        screen(PassBegan("evaluating", len(images)))
        answers = Answers()
        result = evaluate(
            classifier.model,
            images,
            classifier.preprocess,
            workers=options.workers,
            on_batch=lambda count: screen(Advanced(count)),
            on_logits=answers.add,
        )
    title, wrong = f"{selection.name}, {split} images", answers.mistakes(images)
    numbers = {"split": split, **result.to_dict()}
    (out / "left-out.csv").unlink(missing_ok=True)
    if bad:
        numbers["left_out"] = [{"image": image.name, "reason": image.reason} for image in bad]
        write_csv(out / "left-out.csv", [("image", "reason"), *((image.name, image.reason) for image in bad)])
    write_json(out / "evaluation.json", numbers)
    heading = ("true class \\ taken for", *result.class_names)
    rows = ([name, *row] for name, row in zip(result.class_names, result.confusion.tolist(), strict=True))
    write_csv(out / "confusion.csv", [heading, *rows])
    plots.confusion(result, out / "confusion.png", title=title)
    write_mistakes(wrong, out / "mistakes.csv")
    plots.mistakes(wrong, out / "mistakes.png", images=images, title=title)
    if options.json:
        print_or_write_json({"run": str(options.run), "data": options.data, **numbers}, options.json)
    if options.json != "-":
        _show(result, title, classifier.model_name)
        more = (", mistakes.png" if wrong else "") + (", left-out.csv" if bad else "")
        print(f"written to {printable(str(out))}: evaluation.json, confusion.csv, confusion.png, mistakes.csv{more}")
    if not bad or options.skip_bad:
        return 0
    total = len(images) + len(bad)
    print(
        f"convit evaluate: {len(bad)} of {total} images do not decode and are not counted; expected all to, or "
        "--skip-bad",
        file=sys.stderr,
    )
    return 1


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
