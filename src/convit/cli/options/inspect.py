"""What ``convit inspect`` can be told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from convit.choices import Device
from convit.cli.options import JsonTarget


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """See what every head of a run looks at."""

    run: Annotated[Path, tyro.conf.arg(metavar="RUN")]
    """A run folder of 'convit train'."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[IMAGE|FOLDER...]")] = ()
    """Pictures, or folders of pictures, to look at [four of the run's test or validation images]."""
    out: Path | None = None
    """Where page and plots go [RUN/inspect]."""
    layers: Annotated[str | None, tyro.conf.arg(metavar="N,N...")] = None
    """Show maps of these layers only, numbered from 1, such as 1,2 [all]."""
    heads: Annotated[str | None, tyro.conf.arg(metavar="N,N...")] = None
    """Show maps of these heads only, numbered from 1, such as 1,2 [all]."""
    patch: Annotated[str | None, tyro.conf.arg(metavar="ROW,COLUMN")] = None
    """Place, from 1, of the patch whose attention the plots show [the middle; the page has them all]."""
    scale: Literal["log", "linear"] = "log"
    """Colour scale of the plots."""
    skip_masking: bool = False
    """Do not run each picture again with content or position switched off."""
    data: Annotated[str | None, tyro.conf.arg(metavar="DATA")] = None
    """Images to average over, as for 'convit evaluate' [the run's own test or validation images]."""
    most: int = 64
    """Average over so many of them at most, evenly spread."""
    json: JsonTarget = None
    """Print the numbers as one JSON document and nothing else, or write it to this .json file."""
    device: Device = "auto"
    """Where to compute [a GPU if there is one]."""
    data_root: Path | None = None
    """Where data sets are downloaded to [$CONVIT_DATA, or ~/.cache/convit/data]."""
