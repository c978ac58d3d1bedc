"""What comes out of a command besides lines: where it may go, and one JSON document with nothing else."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convit import files
from convit.choices import IMAGE_SUFFIXES, RUN_FILES
from convit.errors import InputError
from convit.options import options_of

if TYPE_CHECKING:  # help does not wait for NumPy
    from convit.cli.options import Command
    from convit.data.scan import BadImage


def left_out_lines(bad: "Sequence[BadImage]") -> list[str]:
    """What is said of files that do not decode: a line for each of the first ten, and one for the others."""
    lines = [f"left out: {image.name}: {image.reason}" for image in bad[:10]]
    return lines if len(bad) <= 10 else [*lines, f"and {len(bad) - 10} more"]


def check_outputs(options: "Command") -> None:
    """Looks at every place that a command is told to write to, before its work (:func:`convit.files.check_output`).

    Raises:
        InputError: one of them cannot be written to, is a picture, or is that of another option too.
    """
    places: dict[Path, str] = {}
    for option in options_of(type(options)):
        value = getattr(options, option.name)
        writes = options.writes(option)
        if not writes or value is None or str(value) == "-":
            continue
        place = Path(value)
        files.check_output(option.word, place, folder=writes == "folder")
        if writes == "file":
            for target in (place, files.absolute(place)):  # a link is written through
                _check_name(option.word, place, target)
        if (other := places.setdefault(files.absolute(place), option.word)) != option.word:
            raise InputError(f"{other} and {option.word}: got {place} for both, expected a file for each")


def _check_name(option: str, place: Path, target: Path) -> None:
    """Raises :class:`InputError` for the name of a picture, or of a file of a run. target: the place, or behind it."""
    if target.suffix.lower() in IMAGE_SUFFIXES and option != "plot":
        raise InputError(f"{option}: got {place}, the name of a picture; expected another name")
    if target.name in (*RUN_FILES, "README.md") and (target.parent / "model.safetensors").exists():
        raise InputError(f"{option}: got {place}, a file of the run itself; expected another name")


def print_or_write_json(document: Any, target: str | None) -> bool:
    """One JSON document to standard output for ``-``, else to the file if one is named; whether it is to be all that is
    printed."""
    if target != "-":
        if target:
            files.write_json(Path(target), document)
        return False
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:  # a name of a file that is no text, or a terminal of few letters
        text = json.dumps(document, indent=1, allow_nan=False)
    print(text)
    return True
