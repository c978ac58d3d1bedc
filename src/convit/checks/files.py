"""The files of a check: where they go, and writing them."""

from pathlib import Path

from convit.checks.page import page
from convit.checks.report import Report
from convit.errors import InputError
from convit.events import Listener, ignore
from convit.files import numbered, others_in, write, write_json

PAGE, RESULT = "check.html", "check.json"
FILES = (PAGE, RESULT)


def place_of(out: Path | None, name: str, root: str) -> Path:
    """The folder of the report: ``out``, or by the name of the data, with a number where other data has that.

    Raises:
        InputError: ``out`` has the report of other data, or files of these names that are no report.
    """
    if out is not None:
        if (others := _others_in(out, root)) is not None:
            raise InputError(f"out: got {out}, which has the check of {others}; expected another one for {root}")
        return out
    own = Path(f"check-{Path(name).name or 'data'}")
    return numbered(own, lambda place: _others_in(place, root) is not None)


def _others_in(folder: Path, root: str) -> str | None:
    """The other data whose report a folder holds; None if there is none, or one of the same data."""
    if (folder / PAGE).exists() and not (folder / RESULT).exists():
        raise InputError(f"out: {folder / PAGE} is there without {RESULT}; expected another folder")
    return others_in(folder / RESULT, root, "report of 'convit check'")


def write_report(report: Report, folder: Path, tell: Listener = ignore) -> None:
    """Writes ``check.html`` and ``check.json`` into a folder, which is made if need be."""
    document = page(report, tell)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RESULT, report.to_dict())
    write(folder / PAGE, document)
