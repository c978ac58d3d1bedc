"""``convit check DATA``: what is wrong with these images?"""

import sys
from pathlib import Path
from typing import Any

from rich.table import Table

from convit.checks.check import check, chosen
from convit.checks.cleaned import check_list, left_out, write_list
from convit.checks.files import FILES, place_of, write_report
from convit.checks.report import Report
from convit.cli.console import Console
from convit.cli.options.check import CheckCommand
from convit.cli.output import print_or_write_json
from convit.cli.screen import Screen
from convit.data.images import ignored_notes
from convit.data.select import Selection
from convit.errors import InputError
from convit.events import Listener, Said
from convit.files import check_apart, check_output, printable

SHOWN = 3
"""So many of each kind are named on the terminal; the page has more, the JSON all."""


def main(options: CheckCommand) -> int:
    """Checks, writes the report and, if it was asked for, the cleaned list, and prints what was found; 128 + the
    signal's number if the training that it needs was stopped."""
    if options.folds is None:
        return _check(options)
    from convit.training import Stopped

    try:
        return _check(options)
    except Stopped as stopped:
        print(f"{printable(str(stopped))}; the same command continues", file=sys.stderr)
        return 128 + stopped.signum


def _check(options: CheckCommand) -> int:
    with Screen(stderr=True) as screen:
        selection = chosen(
            options.data, data_root=options.data_root, folders=options.folders, full_scale=options.full_scale
        )
        places = [Path(selection.root), *(Path(selection.root) / folder for folder in options.folders.values())]
        out = place_of(options.out, selection.name, selection.root)
        check_apart("out", out, places)
        check_output("out", out, folder=True)
        if options.write is not None:
            check_list(options.write, selection, overwrite=options.overwrite)
        for note in (*ignored_notes(selection.ignored), *selection.notes):
            screen(Said(note))
        report = check(selection, tell=screen, **_labels(options, selection, out, screen))
        refused: InputError | None = None
        if options.write is not None:
            try:
                report = write_list(report, left_out(report, options.leave_out, options.write), options.write)
            except InputError as error:  # what was found is said nevertheless
                refused = error
        write_report(report, out, screen)
    if not print_or_write_json(report.to_dict(), options.json):
        _show(report)
        if options.write is not None and refused is None:
            kept = len(report.pictures) - len(report.left_out)
            print(f"written to {printable(str(options.write))}: {kept} images, without {len(report.left_out)}")
        print(f"written to {printable(str(out))}: {', '.join(FILES)}")
    if refused is not None:
        raise refused
    return 0


def _labels(options: CheckCommand, selection: Selection, out: Path, tell: Listener) -> dict[str, Any]:
    """What a check needs to look at labels; nothing where it is not to."""
    if options.run is None and options.folds is None:
        return {}
    from convit.checks import predictions  # with PyTorch

    if options.run is not None:
        predict = predictions.of_run(options.run, selection, options.device, tell)
        return {"predict": predict, "run_split": predictions.run_split(options.run, selection)}
    names = ("data", "folds", "epochs", "train", "val", "test", "data_root", "full_scale", "device")
    asked = {name: value for name in names if (value := getattr(options, name)) is not None}
    return {"predict": predictions.by_training(out / "folds", {**asked, "skip_bad": True}, tell)}


def _show(report: Report) -> None:
    """A line for each kind of fault, and the first ones of it by name."""
    console = Console()
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(justify="right")
    table.add_column()
    table.add_column(overflow="fold")
    for kind, count, what in report.rows():
        table.add_row(str(count), kind, printable(what), style=None if count else "dim")
    splits = ", ".join(f"{count} {split}" for split, count in report.counts().items() if split != "all")
    title = f"{report.name}: {len(report.pictures)} images in {len(report.pictures.class_names)} classes"
    console.print(printable(title + (f" ({splits})" if splits else "")), markup=False, soft_wrap=True)
    console.print(table)
    for line in report.examples(SHOWN):
        console.print(printable(line), markup=False, soft_wrap=True)
