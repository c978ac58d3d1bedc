"""What can be set about an experiment: each field is an option of ``convit experiment``, the text under it its help.

``()`` and None mean open: then it is decided by the study (:mod:`convit.experiments.settle`), or for each run by its
recipe. Imports nothing heavy.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from convit.choices import Device, OptimizerName, RecipeName
from convit.options import Arg, NotNegative, Options, Positive
from convit.training.options import Sides

Name = Literal[
    "sample-efficiency", "ablation", "locality", "masking", "dynamics", "distillation", "models", "design", "small-data"
]
Fraction = Annotated[float, Meta(ge=1e-6, le=1)]


@dataclass(frozen=True, kw_only=True)
class GridOptions:
    """Grid: which runs are made and compared."""

    name: Annotated[Name, Arg("NAME", positional=True)]
    """The experiment: sample-efficiency, ablation, locality, masking, dynamics, distillation, models; or, not in the
    paper, design, a search, and small-data, other models at equal minutes."""
    data: Annotated[str, Arg("DATA", positional=True)]
    """Labelled images, as for 'convit train'."""
    preset: Literal["paper"] | None = None
    """'paper' for the published models, recipe, epochs and grid in place of those for a laptop."""
    models: Annotated[tuple[str, ...], Arg("NAME")] = ()
    """Names from 'convit models', one or more [by the size of the images]."""
    seeds: tuple[Annotated[int, Meta(ge=0, le=2**32)], ...] = ()
    """Every run is made with each of them [0 1; for masking, distillation, models 0 1 2; for dynamics, paper 0]."""
    fractions: tuple[Fraction, ...] = ()
    """Parts of each class to learn from, for as many images shown [0.1 0.3 1; for ablation 1, design 0.1]."""
    rows: Annotated[tuple[str, ...], Arg("ROW")] = ()
    """Ablation: rows of table 3, a to g, and psa, the ungated one of figure 9; design: its rows [all]. Small-data:
    convit, twin, cnn, cnn-24, resnet18, cct [all but cnn-24]."""
    rates: tuple[Positive, ...] = ()
    """Small-data: factors of each model's learning rate; with several the test split stays unread [1]."""
    strengths: tuple[Annotated[float, Meta(ge=1e-6, le=1e6)], ...] = ()
    """Locality: strengths at the start [0.01 0.1 1]."""
    layers: tuple[NotNegative, ...] = ()
    """Locality: numbers of GPSA layers. Masking: how many first layers [in thirds of the model's, to all]."""
    teacher: Annotated[str | None, Arg("NAME")] = None
    """Distillation: name of a timm model that knows the same classes [that of --teacher-weights RUN]."""
    teacher_weights: Path | None = None
    """Distillation: the teacher's weights, or a run folder [timm's published ones]."""
    epochs: Annotated[float, Meta(ge=0.01, le=1e6)] | None = None
    """Times that every image of all the data is shown, such as 1.6; those of a part of it as many times more, to whole
    epochs [10 to 30 for digits, else the recipe's]."""


@dataclass(frozen=True, kw_only=True)
class SharedOptions:
    """Runs: what all of them have in common, as for 'convit train'."""

    batch_size: Annotated[int, Meta(ge=2, multiple_of=2)] | None = None
    """Images per step, in every run [64 for digits, else the recipe's by a run's number of images]."""
    lr: Positive | None = None
    """Peak learning rate, in every run [the recipe's]."""
    opt: OptimizerName | None = None
    """Optimiser, in every run [the recipe's]."""
    recipe: RecipeName | None = None
    """Where the values of open options come from [small]."""
    image_size: Sides | None = None
    """Side of the models' input in pixels, or height and width [the model's]."""
    classes: Annotated[int, Meta(ge=2)] | None = None
    """Take the first so many of the classes, in their order [all]."""
    train: Annotated[Path | None, Arg("DIR")] = None
    """The folder in DATA (or elsewhere) whose sub-folders are classes to learn; . for DATA [train, Training, ...]."""
    val: Annotated[Path | None, Arg("DIR")] = None
    """The same to validate on, beside --train [val, valid, dev, ..., or a part of the others]."""
    test: Annotated[Path | None, Arg("DIR")] = None
    """The same to test on, beside --train [test, Testing, ..., or none]."""
    val_fraction: Annotated[float, Meta(ge=0.01, le=0.9)] = 0.1
    """Part of each class held out to choose the best epoch, where the data has no validation split."""
    data_root: Path | None = None
    """Where data sets are downloaded to [$CONVIT_DATA, or ~/.cache/convit/data]."""
    skip_bad: bool = False
    """Leave out files that do not decode."""
    full_scale: Positive | None = None
    """The value that is white in grey images of more than 8 bits or of floats [from the training images]."""
    workers: Annotated[int, Meta(ge=0, le=1024)] | None = None
    """Processes that load images, for each run [as for 'convit train']."""
    device: Device = "auto"
    """Where to compute [a GPU if there is one]."""


@dataclass(frozen=True, kw_only=True)
class Settings(SharedOptions, GridOptions, Options):  # the fields of the last base come first
    """What is asked of an experiment, or, once it is settled, all of it that its runs do not decide themselves."""
