"""What ``convit evaluate`` can be told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from convit.choices import Device
from convit.cli.options import JsonTarget


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Evaluate a run on labelled images."""

    run: Annotated[Path, tyro.conf.arg(metavar="RUN")]
    """A run folder of 'convit train'."""
    data: Annotated[str, tyro.conf.arg(metavar="DATA")]
    """Labelled images: a folder, a list (.csv, .tsv, .parquet), .tar shards, 'hf:owner/name', 'digits', or a
    torchvision data set."""
    part: Literal["auto", "train", "val", "test", "all"] = "auto"
    """Which images: 'auto' takes the test part, else those that the run did not learn from, else all."""
    out: Path | None = None
    """Where the results go [RUN/evaluation-DATA-PART]."""
    json: JsonTarget = None
    """Print one JSON document and nothing else, or write it to this .json file."""
    batch_size: int = 64
    """Images at once."""
    workers: int = 0
    """Processes that load images."""
    device: Device = "auto"
    """Where to compute [a GPU if there is one]."""
    skip_bad: bool = False
    """Leave out files that do not decode."""
    data_root: Path | None = None
    """Where data sets are downloaded to [$CONVIT_DATA, or ~/.cache/convit/data]."""
