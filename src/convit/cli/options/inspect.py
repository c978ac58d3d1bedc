"""What ``convit inspect`` can be told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from convit.choices import Device
from convit.cli.options import Command, JsonTarget
from convit.options import Arg, Count

Place = Annotated[tuple[Count, ...], Meta(min_length=2, max_length=2)]


@dataclass(frozen=True, kw_only=True)
class InspectCommand(Command):
    """See what every head of a run looks at: a page to point at, plots, numbers."""

    run: Annotated[Path, Arg("RUN", positional=True)]
    """A run folder of 'convit train'."""
    images: Annotated[tuple[Path, ...], Arg("IMAGE|FOLDER", positional=True)] = ()
    """Pictures, or folders of pictures, to look at [four of the run's test or validation images]."""
    out: Annotated[Path | None, Arg(writes="folder")] = None
    """Where page and plots go [RUN/inspect]."""
    layers: tuple[Count, ...] = ()
    """Show maps of these layers only, counted from 1 [all]."""
    heads: tuple[Count, ...] = ()
    """Show maps of these heads only, counted from 1 [all]."""
    patch: Annotated[Place | None, Arg("ROW COLUMN")] = None
    """Place, from 1, of the patch whose attention the plots show [the middle; the page has them all]."""
    skip_masking: bool = False
    """Do not run each picture again with content or position switched off."""
    data: Annotated[str | None, Arg("DATA")] = None
    """Images to average over, as for 'convit evaluate' [the run's own test or validation images]."""
    most: Count = 64
    """Average over so many of them at most, evenly spread."""
    json: JsonTarget = None
    """Print the numbers as one JSON document and nothing else, or write it to this .json file."""
    device: Device = "auto"
    """Where to compute [a GPU if there is one]."""

    def look_ahead(self) -> None:
        """The run, the pictures, and the data if there is any."""
        from convit.classifier_folder import check_source, refuse_folds

        refuse_folds(self.run, "to inspect")
        check_source(self.run)
        if self.images:
            from convit.data.images import pictures

            pictures(self.images)
        if self.data is not None:
            from convit.data.sources import kind_of_source

            kind_of_source(self.data)
