"""What ``convit export`` can be told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from convit.choices import OPSET, Views
from convit.cli.options import Command
from convit.options import Arg, Count, Option


@dataclass(frozen=True, kw_only=True)
class ExportCommand(Command):
    """Write a run as one file to deploy."""

    run: Annotated[Path, Arg("RUN", positional=True)]
    """A run folder of 'convit train'."""
    out: Annotated[Path | None, Arg(writes="file")] = None
    """The file [RUN/model.onnx, RUN/model-int8.onnx, RUN/model.pt2 or RUN/model.html]; for 'space' the folder
    [RUN/space]."""
    format: Literal["onnx", "torch", "web", "space"] = "onnx"
    """'onnx' for onnxruntime and others, 'torch' for torch.export.load, 'web' for one page that classifies photos in a
    browser, without a server, 'space' for a folder with that page and a README.md, for a static host."""
    license: str | None = None
    """Such as mit: what the README.md of a space says."""
    push: Annotated[str | None, Arg("OWNER/NAME")] = None
    """Also upload the space to the Hugging Face Hub, with the token of 'hf auth login'."""
    views: Views = "one"
    """'flip': a file that looks at each image as it is and mirrored, and gives the mean of both; twice the time, not
    calibrated. Not for web and space."""
    dynamic_size: bool = False
    """Leave height and width open too: any that the patch divides."""
    int8: bool = False
    """8-bit weights: less than half the size, one image at a time, and other answers by a little; see how many with
    --data."""
    data: Annotated[str | None, Arg("DATA")] = None
    """Labelled images, as for 'convit evaluate', to score the run and the file on."""
    opset: Count = OPSET
    """Version of the ONNX operators, for an older or another runtime."""
    overwrite: bool = False
    """Replace a file that is there."""

    def writes(self, option: Option) -> Literal["", "file", "folder"]:
        """``--out`` is a folder for a space."""
        return "folder" if option.name == "out" and self.format == "space" else option.arg.writes

    def look_ahead(self) -> None:
        """The run, and the data if there is any."""
        from convit.classifier_folder import check_source, refuse_folds

        check_source(self.run)
        if self.format in ("web", "space"):
            refuse_folds(self.run, f"for --format {self.format}")
        if self.data is not None:
            from convit.data.sources import kind_of_source

            kind_of_source(self.data)
