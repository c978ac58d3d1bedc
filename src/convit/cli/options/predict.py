"""What ``convit predict`` can be told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from convit.choices import Device, Views
from convit.cli.options import Command, JsonTarget, check_views
from convit.errors import InputError
from convit.options import Arg, Count, Part


@dataclass(frozen=True, kw_only=True)
class PredictCommand(Command):
    """Classify pictures with a trained run, or with an exported file, which needs no PyTorch."""

    run: Annotated[Path, Arg("RUN", positional=True)]
    """A run folder of 'convit train', or an .onnx file of 'convit export'."""
    images: Annotated[tuple[Path, ...], Arg("IMAGE|FOLDER", positional=True)]
    """Pictures, or folders of pictures."""
    reject: Part | None = None
    """Say 'none of these' of pictures unlike those that the run learned from. The rate of false alarms: at most so many
    pictures of its classes are taken for none, such as 0.05 [not said]."""
    coverage: Part | None = None
    """Also give the classes that together hold the true one so often, such as 0.95 [not given]."""
    views: Views = "one"
    """'flip': look at each picture as it is and mirrored, and give the mean of both; a little more often right, twice
    the time, not calibrated. Not for an .onnx file: 'convit export --views flip' puts it in."""
    top_k: Count = 5
    """How many classes to give for each picture."""
    csv: Annotated[Path | None, Arg(writes="file")] = None
    """Write a table to this file: a line for each picture and class."""
    json: JsonTarget = None
    """Print one JSON document and nothing else, or write it to this .json file."""
    skip_bad: bool = False
    """Leave out files that do not decode; without it the results name them and why, and the exit status is 1."""
    device: Device = "auto"
    """Where to compute [a GPU if there is one; the CPU for an .onnx file]."""

    @property
    def without_torch(self) -> bool:
        """Whether it names an ONNX file, there or not; a run folder may have any name."""
        return self.run.suffix.lower() == ".onnx" and not self.run.is_dir()

    @property
    def modules(self) -> tuple[str, ...]:
        """PyTorch's part, for a run."""
        return () if self.without_torch else ("convit.cli.runs",)

    def look_ahead(self) -> None:
        """The run or the exported file, and the pictures."""
        from convit.classifier_folder import check_source
        from convit.data.images import pictures

        check_views(self.views, self.reject, self.coverage)
        if self.without_torch and self.views != "one":
            raise InputError(f"views: got {self.views} for an .onnx file, expected one that was exported with it")
        if self.without_torch:
            from convit_onnx import check_file

            check_file(self.run)
        else:
            check_source(self.run)
        pictures(self.images)
