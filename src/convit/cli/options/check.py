"""What ``convit check`` can be told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from convit.choices import Device, Fault
from convit.cli.options import Command, JsonTarget
from convit.errors import InputError
from convit.options import Arg, Count, Positive


@dataclass(frozen=True, kw_only=True)
class CheckCommand(Command):
    """Look for faults in labelled images: files that do not decode, the same pictures twice, above all in two splits,
    small classes, pictures unlike the others, and, with --run or --folds, wrong labels. Nothing of yours is changed."""

    data: Annotated[str, Arg("DATA", positional=True)]
    """Labelled images: a folder, a list (.csv, .tsv, .parquet), .tar shards, 'hf:owner/name', 'digits', or a
    torchvision data set."""
    run: Annotated[Path | None, Arg("RUN")] = None
    """Look for wrong labels too, with a run on this data: by its out-of-fold predictions, if it is one of 'convit train
    --folds', else among the images that it did not learn from."""
    folds: Annotated[int, Meta(ge=2, le=1000)] | None = None
    """Look for wrong labels too: train so many runs in OUT/folds, each without another part of the images, which it
    predicts. Stopped, the same command continues."""
    epochs: Count | None = None
    """Of these runs [as for 'convit train']."""
    out: Annotated[Path | None, Arg(writes="folder")] = None
    """Where check.json and check.html go [check-NAME]."""
    write: Annotated[Path | None, Arg("LIST.csv", writes="file")] = None
    """Write a list of the images without the faults, for 'convit train LIST.csv'."""
    leave_out: Annotated[tuple[Fault, ...], Arg("FAULT")] = ("unreadable", "duplicates", "near-duplicates")
    """The faults that the list leaves out, of unreadable, duplicates, near-duplicates and labels."""
    overwrite: bool = False
    """Replace a list that is there."""
    json: JsonTarget = None
    """Print one JSON document and nothing else, or write it to this .json file."""
    train: Annotated[Path | None, Arg("DIR")] = None
    """The folder in DATA (or elsewhere) whose sub-folders are classes to learn; . for DATA [train, Training, ...]."""
    val: Annotated[Path | None, Arg("DIR")] = None
    """The same to validate on, beside --train [val, valid, dev, ..., or none]."""
    test: Annotated[Path | None, Arg("DIR")] = None
    """The same to test on, beside --train [test, Testing, ..., or none]."""
    data_root: Path | None = None
    """Where data sets are downloaded to [$CONVIT_DATA, or ~/.cache/convit/data]."""
    device: Device = "auto"
    """Where to compute predictions [a GPU if there is one]."""
    full_scale: Positive | None = None
    """The value that is white in grey images of more than 8 bits or of floats [from the largest value in the training
    images: 1, 255, 1023, 4095, 16383 or 65535]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.write is None and (given := next((o for o in ("leave_out", "overwrite") if o in self.given()), None)):
            raise InputError(f"{given.replace('_', '-')}: got it without --write, expected --write LIST.csv too")
        if self.run is not None and self.folds is not None:
            raise InputError("run and folds: got both, expected one of them")
        if self.folds is None and self.epochs is not None:
            raise InputError("epochs: got it without --folds, expected --folds K too")
        if "labels" in self.leave_out and self.run is None and self.folds is None:
            raise InputError("leave-out: got labels, which are not looked at without --run or --folds; expected one")
        if self.train is None and self.folders:
            raise InputError(f"{min(self.folders)}: got it without --train, expected --train DIR too")

    @property
    def modules(self) -> tuple[str, ...]:
        """PyTorch's part, to look for wrong labels."""
        return ("convit.checks.predictions",) if self.run or self.folds else ()

    @property
    def folders(self) -> dict[str, Path]:
        """Split -> its folder, where they were named."""
        named = {"train": self.train, "val": self.val, "test": self.test}
        return {split: folder for split, folder in named.items() if folder is not None}

    def look_ahead(self) -> None:
        """The data."""
        from convit.data.sources import kind_of_source

        if self.run is not None:
            from convit.classifier_folder import check_source

            check_source(self.run)
        kind_of_source(self.data, self.folders)
