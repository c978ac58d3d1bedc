"""What ``convit experiment`` can be told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from convit.choices import Device, RecipeName

Name = Literal[
    "sample-efficiency", "ablation", "locality", "masking", "dynamics", "distillation", "models", "small-data"
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """An experiment of the paper on your data. Given again, the command goes on."""

    name: Annotated[Name, tyro.conf.arg(metavar="NAME"), tyro.conf.Positional]
    """The experiment: sample-efficiency, ablation, locality, masking, dynamics, distillation, models, or small-data, a
    search of ours."""
    data: Annotated[str, tyro.conf.arg(metavar="DATA"), tyro.conf.Positional]
    """Labelled images, as for 'convit train'."""
    out: Path | None = None
    """The folder of runs, results, table and pictures; one that is there goes on [experiments/NAME-DATA]."""
    preset: Literal["paper"] | None = None
    """'paper' for the published models, recipe, epochs and grid in place of those for a laptop."""
    models: Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="NAME ...")] = None
    """Names from 'convit models', one or more [by the size of the images]."""
    seeds: tuple[int, ...] | None = None
    """Every run is made with each of them [0 1; for masking, distillation, models 0 1 2; for dynamics, paper 0]."""
    fractions: tuple[float, ...] | None = None
    """Parts of each class to learn from, for as many images shown [0.1 0.3 1; for ablation 1, small-data 0.1]."""
    rows: Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="ROW ...")] = None
    """Ablation: rows of table 3, a to g, and psa, the ungated one of figure 9; small-data: its rows [all]."""
    strengths: tuple[float, ...] | None = None
    """Locality: strengths at the start [0.01 0.1 1]."""
    layers: tuple[int, ...] | None = None
    """Locality: numbers of GPSA layers. Masking: how many first layers [in thirds of the model's, to all]."""
    teacher: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Distillation: name of a timm model that knows the same classes [that of --teacher-weights RUN]."""
    teacher_weights: Path | None = None
    """Distillation: the teacher's weights, or a run folder [timm's published ones]."""
    epochs: int | None = None
    """Times that every image of all the data is shown [10 to 30 for digits, else the recipe's]."""
    batch_size: int | None = None
    """Images per step, in every run [64 for digits, else the recipe's by a run's number of images]."""
    lr: float | None = None
    """Peak learning rate, in every run [the recipe's]."""
    recipe: RecipeName | None = None
    """Where the values of open options come from [small]."""
    image_size: Annotated[tuple[int, ...] | None, tyro.conf.arg(metavar="INT [INT]")] = None
    """Side of the models' input in pixels, or height and width [the model's]."""
    classes: int | None = None
    """Take so many of the classes, drawn by seed [all]."""
    val_fraction: float | None = None
    """Part of each class held out to choose the best epoch, where the data has no validation part [0.1]."""
    data_root: Path | None = None
    """Where data sets are downloaded to [$CONVIT_DATA, or ~/.cache/convit/data]."""
    skip_bad: bool = False
    """Leave out files that do not decode."""
    workers: int | None = None
    """Processes that load images, for each run [as for 'convit train']."""
    device: Device = "auto"
    """Where to compute [a GPU if there is one]."""
    jobs: int = 1
    """Runs at once; the CPU threads are divided among them."""
    overwrite: bool = False
    """Replace the experiment in --out."""
