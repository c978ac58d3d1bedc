"""The config of a run: each field is an option of ``convit train``, a key of ``config.yaml`` and a keyword of
:func:`convit.train`; the text under it is its help.

None means not given: then the data and the recipe decide (:mod:`convit.training.planning`). The brackets have the value
that is decided; if a recipe's value is not that of ``small``, they name the recipe.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from convit.choices import Device, OptimizerName, Precision, RecipeName
from convit.errors import InputError
from convit.options import Arg, Count, NotNegative, Options, Part, Positive, checked, make
from convit.options_file import read_yaml
from convit.training.rules import check_asked

RUN_CONFIG = "config.yaml"
"""The options of a run, in its folder."""
Sides = Annotated[tuple[Annotated[int, Meta(ge=1, le=8192)], ...], Meta(min_length=1, max_length=2)]


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Data: what to learn from."""

    data: Annotated[str | None, Arg("DATA", positional=True)] = None
    """A folder (a sub-folder per class, or train/, val/ and test/ of such), a .csv, .tsv or .parquet list of path and
    label, .tar shards, 'hf:owner/name', 'digits', or a torchvision data set."""
    train: Annotated[Path | None, Arg("DIR")] = None
    """The folder in DATA (or elsewhere) whose sub-folders are classes to learn; . for DATA [train, Training, ...]."""
    val: Annotated[Path | None, Arg("DIR")] = None
    """The same to validate on, beside --train [val, valid, dev, ..., or a part of the others]."""
    test: Annotated[Path | None, Arg("DIR")] = None
    """The same to test on, beside --train [test, Testing, ..., or none]."""
    val_fraction: Annotated[float, Meta(ge=0.01, le=0.9)] = 0.1
    """Part of each class that is held out to choose the best epoch, where the data has no validation split."""
    folds: Annotated[int, Meta(ge=2, le=1000)] | None = None
    """Train so many runs in one folder, each without another part of each class, on which it validates; together they
    predict every image, and are one model that averages [one run]."""
    fold: Count | None = None
    """With --folds: train this run of them alone, from 1 [all, one after the other]."""
    fraction: Annotated[float, Meta(gt=0, le=1)] | None = None
    """Learn from this part of each class, drawn by seed, for 1 / fraction times the epochs, as in the paper [all]."""
    per_class: Count | None = None
    """Learn from so many images of each class, drawn by seed [all]."""
    classes: Annotated[int, Meta(ge=2)] | None = None
    """Take the first so many of the classes, in their order [all]."""
    balanced_sampling: bool = False
    """Show every class equally often: images of small classes several times an epoch, a part of those of large ones."""
    data_root: Path | None = None
    """Where data sets are downloaded to [$CONVIT_DATA, or ~/.cache/convit/data]."""
    skip_bad: bool = False
    """Leave out files that do not decode, and list them in the run folder."""
    full_scale: Positive | None = None
    """The value that is white in grey images of more than 8 bits or of floats [from the largest value in the training
    images: 1, 255, 1023, 4095, 16383 or 65535]."""
    skip_test: bool = False
    """Leave the test split unread, for when options are still being chosen."""
    cache_gb: Annotated[float, Meta(ge=0, le=1e6)] = 10.0
    """Gigabytes of disk for small copies of the images of all runs, in ~/.cache/convit/copies: each file is decoded
    once, and copies that were not read for longest make room; 0 for none."""
    workers: Annotated[int, Meta(ge=0, le=1024)] | None = None
    """Processes that load images [none up to 16 px, else one per core, at most 8]."""


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Model: what to train."""

    model: Annotated[str | None, Arg("NAME")] = None
    """Name of the model, from 'convit models' [by the size of the images]."""
    image_size: Sides | None = None
    """Side of the model's input in pixels, or height and width [by the size of the images]."""
    crop_pct: Annotated[float, Meta(ge=0.05, le=1)] | None = None
    """Part of each side of the resized image that evaluation keeps [1; that of the weights; 0.875 for paper]."""
    patch_size: Count | None = None
    """Side of a patch in pixels [the model's own]."""
    local_up_to_layer: NotNegative | None = None
    """Number of blocks that are gated positional self-attention; 0 for the plain-attention twin [the model's]."""
    heads: Count | None = None
    """Attention heads of each block, a divisor of the width; k^2 of them start as a k x k convolution [the model's]."""
    stem: Literal["patch", "conv"] | None = None
    """From pixels to patches by a linear map of each, or by strided convolutions that overlap [the model's]."""
    pool: Literal["token", "avg"] | None = None
    """What the classifier reads: the class token, or the mean of the patches [the model's]."""
    norm: Literal["layer", "batch"] | None = None
    """'layer' norms each token by itself, 'batch' each channel over all images of a step, as in CNNs [the model's]."""
    position_embedding: bool | None = None
    """Whether patches carry an embedding of their place at the input [the model's]."""
    gate_init: Annotated[float, Meta(ge=-20, le=20)] | None = None
    """Logit that every gate starts at; at 1 position has 73% of the attention, at 3 it has 95% [the model's]."""
    weight_init: Literal["published", "fan_in"] | None = None
    """How far weights spread at the start: 'published' 0.02, 'fan_in' 1 / sqrt(inputs of the layer) [the model's]."""
    locality_strength: Positive | None = None
    """How sharply each head looks at its cell of the convolution kernel at the start [2; 1 for paper; that of the
    weights]."""
    drop_path: Annotated[float, Meta(ge=0, le=0.9)] | None = None
    """Probability that a residual branch is left out for an image, at the last block [0.05; 0.1 for paper]."""
    ungated: bool = False
    """Take positional self-attention without gates in place of GPSA, as in the paper's figure 9."""
    random_init: bool = False
    """Start the GPSA layers like every other weight, not as a convolution (table 3, rows c, d and g)."""
    freeze_gates: bool = False
    """Keep every gate at one half: content and position weigh alike (table 3, rows b, d, f and g)."""
    freeze_gpsa: bool = False
    """Leave the attention of the GPSA blocks as it starts; their perceptrons and norms learn (rows f and g)."""


@dataclass(frozen=True, kw_only=True)
class WeightsOptions:
    """Weights: what to start from, and a teacher to learn from."""

    pretrained: bool = False
    """Start from the authors' ImageNet weights, fetched from the Hugging Face Hub [of convit_tiny_patch16_224]."""
    weights: Path | None = None
    """Start from a file of weights (.safetensors, .pth), or from the model of another run, with a new head
    [from scratch]."""
    freeze: NotNegative = 0
    """Leave the patch embedding and so many of the first blocks as they start."""
    teacher: Annotated[str | None, Arg("NAME")] = None
    """A timm model that knows the same classes, such as resnet18 [no teacher; that of --teacher-weights RUN]."""
    teacher_weights: Path | None = None
    """The teacher's weights, or a run folder [timm's published ones]."""
    distillation: Literal["hard", "soft"] = "hard"
    """Learn the class that the teacher answers, or all of its probabilities."""
    distillation_alpha: Part = 0.5
    """Part of the loss that is the teacher's."""
    distillation_temperature: Positive = 3.0
    """Of the probabilities of soft distillation."""


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Training: a linear warm-up, then a cosine."""

    recipe: RecipeName | None = None
    """Where the values of open options come from [finetune with --pretrained or --weights, else small]."""
    epochs: Count | None = None
    """Times that every image is shown [1300 / sqrt(images), from 10 to 200; fewer when fine-tuning; 300 for paper]."""
    minutes: Positive | None = None
    """In place of --epochs: as many as end after about so many minutes on this machine, by steps that are measured
    first [as long as --epochs take]."""
    first_size: Sides | None = None
    """Side of the images in the first epochs, when fewer pixels teach nearly as much in less time [three quarters of
    --image-size]."""
    first_epochs: NotNegative | None = None
    """Number of epochs with --first-size [60% of them where the model has 8 x 8 patches or more; 0 with a teacher, when
    fine-tuning and for paper]."""
    batch_size: Annotated[int, Meta(ge=2, multiple_of=2)] | None = None
    """Images per step, an even number [a sixteenth of the images, a power of two from 8 to 128; 1024 for paper]."""
    accumulate: Count = 1
    """Compute each step in so many parts, one after the other: as if in one, in less memory."""
    opt: OptimizerName | None = None
    """Optimiser; muon is Muon for matrices and AdamW for the rest [muon; adamw for finetune, paper]."""
    lr: Positive | None = None
    """Peak learning rate [0.002 * sqrt(batch size / 64), 2.8 times it for muon; half of it when fine-tuning]."""
    layer_decay: Annotated[float, Meta(ge=0.01, le=1)] | None = None
    """Learning rate of each block over that of the next [1; 0.75 when fine-tuning]."""
    position_lr: Annotated[float, Meta(ge=0, le=1000)] | None = None
    """Learning rate of gates and of where heads look, over that of the other weights [1]."""
    warmup_epochs: Annotated[float, Meta(ge=0, le=10_000)] | None = None
    """Length of the warm-up [a tenth of the epochs, at most 5]."""
    warmup_lr: Annotated[float, Meta(ge=0, le=1e12)] | None = None
    """Learning rate at the start of the warm-up [a hundredth of the peak; 1e-6 for paper]."""
    min_lr: Part | None = None
    """Learning rate at the end [1e-5]."""
    weight_decay: Part | None = None
    """Weight decay; none for biases, norms, gates and embeddings [0.05]."""
    clip_grad: Annotated[float, Meta(ge=0, le=1e12)] | None = None
    """Largest norm of the gradient; 0 for no limit [1; 0 for paper]."""
    ema_decay: Annotated[float, Meta(ge=0, lt=1)] | None = None
    """Evaluate and save a moving average of the weights: part of it that each step keeps, such as 0.9998 [0: none]."""
    label_smoothing: Part | None = None
    """Part of the target that is spread over all classes [0.1]."""
    class_weights: Literal["none", "balanced"] = "none"
    """'balanced' weighs each class in the loss by the inverse of its number of images."""
    patience: Count | None = None
    """Stop after so many epochs without a better one [train to the end]."""
    precision: Precision = "fp32"
    """Type of the matrix products; weights stay fp32. With fp16 the loss is scaled."""
    compile: bool = False
    """Compile the model by torch.compile: a slow start, then faster steps."""


@dataclass(frozen=True, kw_only=True)
class AugmentationOptions:
    """Augmentation: how images are varied in training."""

    flip: bool | None = None
    """Mirror every other image [unless the data set has digits, letters or signs]."""
    crop: Literal["random_resized", "shift", "none"] | None = None
    """'random_resized' takes a part of the image, 'shift' moves it by up to an eighth, 'none' takes its middle [shift
    from scratch up to 64 px, random_resized above, with --crop-scale, when fine-tuning and for paper]."""
    crop_scale: Annotated[float, Meta(gt=0, le=1)] | None = None
    """Smallest part of the area that 'random_resized' takes [0.6 up to 64 px, 0.35 above; 0.08 for paper]."""
    rand_augment: str | None = None
    """timm's RandAugment; '' for none [none up to 16 px, and below 30 epochs from scratch; else rand-m6-mstd0.5-inc1;
    rand-m9-mstd0.5-inc1 for paper]."""
    color_jitter: Part | None = None
    """Largest change of brightness, contrast and saturation [0]."""
    random_erasing: Part | None = None
    """Probability that a rectangle is replaced by noise [0; 0.25 for paper]."""
    repeated_augmentation: Count | None = None
    """Show each image of an epoch so many times, varied anew each time, and that many times fewer [1; 3 for paper]."""
    mixup: Annotated[float, Meta(ge=0, le=100)] | None = None
    """Mixup's alpha; 0 for none [0 up to 64 px or below 30 epochs, else 0.2; 0.2 when fine-tuning; 0.8 for paper]."""
    cutmix: Annotated[float, Meta(ge=0, le=100)] | None = None
    """CutMix's alpha; 0 for none [as --mixup 0 or 1 from scratch; 1 from 17 px on when fine-tuning; 1 for paper]."""
    mix_prob: Part | None = None
    """Probability that a batch is mixed, where --mixup or --cutmix is above 0 [0.5; 1 for paper]."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Run: where it goes and where it runs."""

    out: Annotated[Path | None, Arg(writes="folder")] = None
    """The run folder [runs/NAME]."""
    seed: Annotated[int, Meta(ge=0, le=2**62)] = 0
    """Decides everything random: the split, the start, the order, the augmentation."""
    device: Device = "auto"
    """Where to compute [a GPU if there is one]."""
    save_minutes: Positive | None = None
    """Save the state every so many minutes too [after each epoch]."""
    overwrite: bool = False
    """Replace the run in --out."""
    resume: Annotated[Path | None, Arg("RUN")] = None
    """Continue this run folder where it stopped, to the same bits; needs no other option."""


@dataclass(frozen=True, kw_only=True)
class Asked(
    RunOptions, AugmentationOptions, TrainingOptions, WeightsOptions, ModelOptions, DataOptions, Options
):  # the fields of the last base come first
    """Everything that can be asked of a run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_asked(self.given())

    @property
    def split_folders(self) -> dict[str, Path]:
        """Split -> its folder, where they were named."""
        named = {"train": self.train, "val": self.val, "test": self.test}
        return {split: folder for split, folder in named.items() if folder is not None}


def asked_from(config: str | Path | None, given: Mapping[str, Any], *, words: bool = False) -> Asked:
    """The options of a YAML file with those that are given besides in their place.

    With ``resume`` among the given ones, the file is the run's own ``config.yaml``, to compare with what is given.

    Args:
        config: the file, or None.
        given: by name; with ``words`` as somebody typed them.
        words: whether the values are texts.

    Raises:
        InputError: a file that cannot be read, an unknown option, a wrong value, neither data nor a run to resume.
    """
    taken = checked(Asked, given, words=words)
    values: dict[str, Any] = {}
    if (run := taken.get("resume")) is not None:
        if config is not None:
            raise InputError("config and resume: got both, expected one of them")
        file = run / RUN_CONFIG
        if file.is_file():  # else whoever reads the folder says what is wrong with it
            try:
                values = checked(Asked, read_yaml(file))
            except InputError as error:
                raise InputError(f"{file}: {str(error).removeprefix(f'config: {file}: ')}") from error
            values.pop("out", None)  # the folder may have been moved
            if new := next((name for name in ("weights", "pretrained") if taken.get(name) and not values[name]), ""):
                raise InputError(f"{new}: got it with --resume {run}, which began without; expected none, or a new run")
    elif config is not None:
        if not isinstance(config, str | Path):
            raise InputError(f"config: got a {type(config).__name__}, expected the path of a YAML file")
        values = checked(Asked, read_yaml(Path(config)))
        for name, same in (("minutes", "epochs"), ("epochs", "minutes")):  # either says how long
            if name in taken:
                values.pop(same, None)
        if values.get("resume") is not None:
            raise InputError(f"config: {config}: resume in it; expected 'convit train --resume {values['resume']}'")
    asked = make(Asked, {**values, **taken})
    if asked.data is None and asked.resume is None:
        raise InputError("data: got none, expected a folder of images or the name of a data set, such as digits")
    return asked
