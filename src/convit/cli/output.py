"""What comes out of a command besides lines: one JSON document, and nothing else with it."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convit import files
from convit.data.scan import BadImage


def left_out_lines(bad: Sequence[BadImage]) -> list[str]:
    """What is said of files that do not decode: a line for each of the first ten, and one for the others."""
    lines = [f"left out: {image.name}: {image.reason}" for image in bad[:10]]
    return lines if len(bad) <= 10 else [*lines, f"and {len(bad) - 10} more"]


def print_or_write_json(document: Any, target: str) -> None:
    """One JSON document to standard output for ``-``, else to the file."""
    if target != "-":
        files.write_json(Path(target), document)
        return
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:  # a name of a file that is no text, or a terminal of few letters
        text = json.dumps(document, indent=1, allow_nan=False)
    print(text)
