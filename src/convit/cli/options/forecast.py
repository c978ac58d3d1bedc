"""What ``convit forecast`` can be told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from convit.choices import Device
from convit.cli.options import Command, JsonTarget
from convit.options import Arg


@dataclass(frozen=True, kw_only=True)
class ForecastCommand(Command):
    """How much more images would give: trains as a run did on a quarter and a half of its images. That takes about as
    long as the run. Given again, the command goes on."""

    run: Annotated[Path, Arg("RUN", positional=True)]
    """A run folder of 'convit train', complete; the trainings go into RUN/forecast."""
    json: JsonTarget = None
    """Print one JSON document and nothing else, or write it to this .json file."""
    workers: Annotated[int, Meta(ge=0, le=1024)] | None = None
    """Processes that load images [as many as the run had]."""
    device: Device | None = None
    """Where to compute [where the run did]."""

    def look_ahead(self) -> None:
        """The run."""
        from convit.classifier_folder import refuse_folds
        from convit.training.look_ahead import check_begun

        refuse_folds(self.run, "to forecast from")
        check_begun(self.run, "run")
