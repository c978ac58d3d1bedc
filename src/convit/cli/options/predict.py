"""What ``convit predict`` can be told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from convit.choices import Device
from convit.cli.options import JsonTarget


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Classify pictures with a trained run."""

    run: Annotated[Path, tyro.conf.arg(metavar="RUN")]
    """A run folder of 'convit train', or an .onnx file of 'convit export'."""
    images: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="IMAGE|FOLDER...")]
    """Pictures, or folders of pictures."""
    top_k: int = 5
    """How many classes to give for each picture."""
    csv: Path | None = None
    """Write a table to this file: a line for each picture and class."""
    json: JsonTarget = None
    """Print one JSON document and nothing else, or write it to this .json file."""
    device: Device = "auto"
    """Where to compute [a GPU if there is one]."""
    skip_bad: bool = False
    """Go on past files that do not decode; each is named on standard error."""
