"""What ``convit evaluate`` can be told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from convit.choices import Device, Views
from convit.cli.options import Command, JsonTarget, check_views
from convit.errors import InputError
from convit.options import Arg, Part


@dataclass(frozen=True, kw_only=True)
class EvaluateCommand(Command):
    """Evaluate a run on labelled images, or compare two runs."""

    run: Annotated[tuple[Path, ...], Arg("RUN", positional=True)]
    """A run folder of 'convit train'; two of them are compared on the same images."""
    data: Annotated[str, Arg("DATA", positional=True)]
    """Labelled images: a folder, a list (.csv, .tsv, .parquet), .tar shards, 'hf:owner/name', 'digits', or a
    torchvision data set."""
    split: Literal["auto", "train", "val", "test", "all"] = "auto"
    """Which images: 'auto' takes the test split, else those that the run did not learn from, else all."""
    views: Views = "one"
    """'flip': look at each image as it is and mirrored, and take the mean of both; twice the time, not calibrated."""
    reject: Part | None = None
    """Also measure how many images are taken for none of the classes, at this rate of false alarms, such as 0.05."""
    coverage: Part | None = None
    """Also measure, by class, how often the prediction sets of this coverage, such as 0.95, have the true class."""
    out: Annotated[Path | None, Arg(writes="folder")] = None
    """Where the results go [RUN/evaluation-DATA-SPLIT; of two runs, nowhere]."""
    json: JsonTarget = None
    """Print one JSON document and nothing else, or write it to this .json file."""
    skip_bad: bool = False
    """Leave out files that do not decode; without it they are not counted either, and the exit status is 1."""
    data_root: Path | None = None
    """Where data sets are downloaded to [$CONVIT_DATA, or ~/.cache/convit/data]."""
    workers: Annotated[int, Meta(ge=0, le=1024)] = 0
    """Processes that load images."""
    device: Device = "auto"
    """Where to compute [a GPU if there is one]."""

    def look_ahead(self) -> None:
        """The run and the data."""
        from convit.classifier_folder import check_source
        from convit.data.sources import kind_of_source

        if len(self.run) > 2:
            raise InputError(f"run: got {len(self.run)} runs, expected one, or two to compare")
        for option, value in (("reject", self.reject), ("coverage", self.coverage)):
            if value is not None and len(self.run) == 2:
                raise InputError(f"{option}: got {value:g} for two runs, expected it with one")
        check_views(self.views, self.reject, self.coverage)
        for run in self.run:
            check_source(run)
        kind_of_source(self.data)
