"""What can be set about a run. The comments under the fields are the help of ``convit train``.

``None`` means: decided from the data and the recipe (:mod:`convit.train.recipes`), and written into the run's
``config.yaml``. The brackets say what is decided; where a recipe decides otherwise than ``small``, they name it.
"""

import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from convit.choices import Device, Precision, RecipeName
from convit.errors import InputError
from convit.train.fields import at_least, between, from_plain, given, positive, to_plain

VAL_FRACTION = 0.1
"""Part of each class that is held out, where nothing else is said."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """What to learn from."""

    val_fraction: float = VAL_FRACTION
    """Part of each class that is held out to choose the best epoch, where the data has no validation part."""
    fraction: float | None = None
    """Learn from this part of each class, drawn by seed, for 1 / fraction times the epochs, as in the paper [all]."""
    per_class: int | None = None
    """Learn from so many images of each class, drawn by seed [all]."""
    classes: int | None = None
    """Take so many of the classes, drawn by seed [all]."""
    balanced_sampling: bool = False
    """Show every class equally often: images of small classes several times an epoch, a part of those of large ones."""
    data_root: Path | None = None
    """Where data sets are downloaded to [$CONVIT_DATA, or ~/.cache/convit/data]."""
    skip_bad: bool = False
    """Leave out files that do not decode, and list them in the run folder."""
    skip_test: bool = False
    """Leave the test part unread, for when options are still being chosen."""
    workers: int | None = None
    """Processes that load images [none if the images are kept in memory, else one per core, at most 8]."""

    def __post_init__(self) -> None:
        between("val-fraction", self.val_fraction, 0.01, 0.9)
        if self.fraction is not None:
            positive("fraction", self.fraction)
            between("fraction", self.fraction, 0.0, 1.0)
        if self.fraction is not None and self.per_class is not None:
            raise InputError("--fraction and --per-class: got both, expected one of them")
        at_least("per-class", self.per_class, 1)
        at_least("classes", self.classes, 2)
        at_least("workers", self.workers, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """What to train."""

    model: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Name of the model, from 'convit models' [by the size of the images]."""
    image_size: Annotated[tuple[int, ...] | None, tyro.conf.arg(metavar="INT [INT]")] = None
    """Side of the model's input in pixels, or height and width [by the size of the images]."""
    crop_pct: float | None = None
    """Part of each side of the resized image that evaluation keeps [1; that of the weights; 0.875 for paper]."""
    patch_size: int | None = None
    """Side of a patch in pixels [the model's own]."""
    local_up_to_layer: int | None = None
    """Number of blocks that are gated positional self-attention; 0 for a plain vision transformer [the model's]."""
    heads: int | None = None
    """Attention heads of each block, a divisor of the width; k^2 of them start as a k x k convolution [the model's]."""
    stem: Literal["patch", "conv"] | None = None
    """From pixels to patches by a linear map of each, or by strided convolutions that overlap [the model's]."""
    pool: Literal["token", "avg"] | None = None
    """What the classifier reads: the class token, or the mean of the patches [the model's]."""
    norm: Literal["layer", "batch"] | None = None
    """'layer' norms each token by itself, 'batch' each channel over all images of a step, as in CNNs [the model's]."""
    position_embedding: bool | None = None
    """Whether patches carry an embedding of their place at the input [the model's]."""
    gate_start: float | None = None
    """Logit that every gate starts at; at 1 position has 73% of the attention, at 3 it has 95% [the model's]."""
    weight_start: Literal["published", "fan_in"] | None = None
    """How far weights spread at the start: 'published' 0.02, 'fan_in' 1 / sqrt(inputs of the layer) [the model's]."""
    locality_strength: float | None = None
    """How sharply each head looks at its cell of the convolution kernel at the start [2; 1 for paper; that of the
    weights]."""
    drop_path: float | None = None
    """Probability that a residual branch is left out for an image, at the last block [0.05; 0.1 for paper]."""
    pretrained: bool = False
    """Start from the authors' ImageNet weights, fetched from the Hugging Face Hub [of convit_tiny_patch16_224]."""
    weights: Path | None = None
    """Start from a file of weights (.safetensors, .pth), or from the model of another run, with a new head."""
    freeze: int = 0
    """Leave the patch embedding and so many of the first blocks as they start."""
    ungated: bool = False
    """Take positional self-attention without gates in place of GPSA, as in the paper's figure 9."""
    random_start: bool = False
    """Start the GPSA layers like every other weight, not as a convolution (table 3, rows c, d and g)."""
    freeze_gates: bool = False
    """Keep every gate at one half: content and position weigh alike (table 3, rows b, d, f and g)."""
    freeze_gpsa: bool = False
    """Leave the attention of the GPSA blocks as it starts; their perceptrons and norms learn (rows f and g)."""

    def __post_init__(self) -> None:
        if self.image_size is not None and not (1 <= len(self.image_size) <= 2 and min(self.image_size) > 0):
            raise InputError(f"image-size: got {self.image_size}, expected one or two positive numbers of pixels")
        positive("crop-pct", self.crop_pct)
        between("crop-pct", self.crop_pct, 0.0, 1.0)
        at_least("patch-size", self.patch_size, 1)
        at_least("local-up-to-layer", self.local_up_to_layer, 0)
        at_least("heads", self.heads, 1)
        between("gate-start", self.gate_start, -20.0, 20.0)
        positive("locality-strength", self.locality_strength)
        between("drop-path", self.drop_path, 0.0, 0.9)
        at_least("freeze", self.freeze, 0)
        started = self.pretrained or self.weights is not None
        if self.freeze and not started:
            raise InputError(
                f"freeze: got {self.freeze} for a start from scratch, expected --pretrained or --weights too"
            )
        if self.pretrained and self.weights is not None:
            raise InputError("--pretrained and --weights: got both, expected one of them")
        from_scratch = (
            "locality_strength",
            "heads",
            "stem",
            "norm",
            "gate_start",
            "weight_start",
            "ungated",
            "random_start",
        )
        if started and (useless := given(self, from_scratch)):
            raise InputError(f"{useless[0]}: got it with --pretrained or --weights, expected a start from scratch")
        if started and self.position_embedding is not None:
            raise InputError("position-embedding: got it with --pretrained or --weights, expected a start from scratch")
        if self.ungated and (useless := given(self, ("freeze_gates", "gate_start"))):
            raise InputError(f"--ungated and --{useless[0]}: got both, expected one of them: there are no gates")
        if self.freeze_gates and self.gate_start is not None:
            raise InputError(
                "--freeze-gates and --gate-start: got both, expected one of them: it fixes gates at one half"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """How to train: AdamW, a linear warm-up, then a cosine."""

    recipe: RecipeName | None = None
    """Where the values of open options come from [finetune with --pretrained or --weights, else small]."""
    epochs: int | None = None
    """Times that every image is shown [1300 / sqrt(images), from 10 to 200; fewer when fine-tuning; 300 for paper]."""
    batch_size: int | None = None
    """Images per step, an even number [a sixteenth of the images, a power of two from 8 to 128; 1024 for paper]."""
    accumulate: int = 1
    """Compute each step in so many parts, one after the other: as if in one, in less memory."""
    lr: float | None = None
    """Peak learning rate [0.002 * sqrt(batch size / 64); half of it when fine-tuning; 5e-4 * batch / 512 for paper]."""
    layer_decay: float | None = None
    """Learning rate of each block over that of the next [1; 0.75 when fine-tuning]."""
    position_lr: float | None = None
    """Learning rate of gates and of where heads look, over that of the other weights [1]."""
    warmup_epochs: float | None = None
    """Length of the warm-up [a tenth of the epochs, at most 5]."""
    warmup_lr: float | None = None
    """Learning rate at the start of the warm-up [a hundredth of the peak; 1e-6 for paper]."""
    min_lr: float | None = None
    """Learning rate at the end [1e-5]."""
    weight_decay: float | None = None
    """Weight decay; none for biases, norms, gates and embeddings [0.05]."""
    clip_grad: float | None = None
    """Largest norm of the gradient; 0 for no limit [1; 0 for paper]."""
    ema_decay: float | None = None
    """Evaluate and save a moving average of the weights: part of it that each step keeps, such as 0.9998 [0: none]."""
    ema_warmup: bool = False
    """Let the average keep less in the first steps: after n of them at most 1 - (1 + n)^(-2/3)."""
    class_weights: Literal["none", "balanced"] = "none"
    """'balanced' weighs each class in the loss by the inverse of its number of images."""
    patience: int | None = None
    """Stop after so many epochs without a better one [train to the end]."""
    precision: Precision = "fp32"
    """Type of the matrix products; weights stay fp32. With fp16 the loss is scaled."""
    channels_last: bool = False
    """Keep images and convolutions with the channels last in memory, which some GPUs prefer."""
    compile: bool = False
    """Compile the model by torch.compile: a slow start, then faster steps."""

    def __post_init__(self) -> None:
        for name, low in (("epochs", 1), ("batch_size", 2), ("accumulate", 1), ("patience", 1)):
            at_least(name.replace("_", "-"), getattr(self, name), low)
        if self.batch_size is not None and self.batch_size % 2:
            raise InputError(f"batch-size: got {self.batch_size}, expected an even number (mixup pairs the images)")
        positive("lr", self.lr)
        between("layer-decay", self.layer_decay, 0.01, 1.0)
        between("position-lr", self.position_lr, 0.0, 1000.0)
        between("warmup-epochs", self.warmup_epochs, 0.0, 10_000.0)
        for name in ("min_lr", "weight_decay"):
            between(name.replace("_", "-"), getattr(self, name), 0.0, 1.0)
        for name in ("warmup_lr", "clip_grad"):
            if getattr(self, name) != 0:
                positive(name.replace("_", "-"), getattr(self, name))
        between("ema-decay", self.ema_decay, 0.0, 1.0 - 1e-9)


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig:
    """How images are varied in training."""

    flip: bool | None = None
    """Mirror every other image [unless the data set has digits, letters or signs]."""
    crop: Literal["random_resized", "shift", "none"] = "random_resized"
    """'random_resized' takes a part of the image, 'shift' moves it by up to an eighth, 'none' takes its middle."""
    crop_scale: float | None = None
    """Smallest part of the area that 'random_resized' takes [0.6 up to 64 px, 0.35 above; 0.08 for paper]."""
    rand_augment: str | None = None
    """timm's RandAugment; '' for none [none up to 64 px (when fine-tuning up to 16 px), rand-m6-mstd0.5-inc1 above;
    rand-m9-mstd0.5-inc1 for paper]."""
    color_jitter: float | None = None
    """Largest change of brightness, contrast and saturation [0]."""
    random_erasing: float | None = None
    """Probability that a rectangle is replaced by noise [0; 0.25 for paper]."""
    repeated_augmentation: int | None = None
    """Show each image of an epoch so many times, varied anew each time, and that many times fewer [1; 3 for paper]."""
    mixup: float | None = None
    """Mixup's alpha; 0 for none [0 up to 64 px, 0.2 above and when fine-tuning; 0.8 for paper]."""
    cutmix: float | None = None
    """CutMix's alpha; 0 for none [0 up to 64 px (when fine-tuning up to 16 px), 1 above and for paper]."""
    mix_prob: float | None = None
    """Probability that a batch is mixed, where --mixup or --cutmix is above 0 [0.5; 1 for paper]."""
    label_smoothing: float | None = None
    """Part of the target that is spread over all classes [0.1]."""

    def __post_init__(self) -> None:
        positive("crop-scale", self.crop_scale)
        for name in ("crop_scale", "color_jitter", "random_erasing", "mix_prob", "label_smoothing"):
            between(name.replace("_", "-"), getattr(self, name), 0.0, 1.0)
        at_least("repeated-augmentation", self.repeated_augmentation, 1)
        between("mixup", self.mixup, 0.0, 100.0)
        between("cutmix", self.cutmix, 0.0, 100.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillConfig:
    """A trained model to learn from besides the labels."""

    teacher: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """A timm model that knows the same classes, such as resnet18 [no teacher; that of --teacher-weights RUN]."""
    teacher_weights: Path | None = None
    """The teacher's weights (.safetensors, .pth), or a run folder [timm's published ones]."""
    distillation: Literal["hard", "soft"] = "hard"
    """Learn the class that the teacher answers, or all of its probabilities."""
    distillation_alpha: float = 0.5
    """The teacher's part of the loss, from 0 to 1."""
    distillation_temperature: float = 3.0
    """What logits are divided by in soft distillation."""

    def __post_init__(self) -> None:
        between("distillation-alpha", self.distillation_alpha, 0.0, 1.0)
        positive("distillation-temperature", self.distillation_temperature)

    @property
    def given(self) -> bool:
        """Whether there is a teacher."""
        return self.teacher is not None or self.teacher_weights is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Where it goes and where it runs."""

    out: Path | None = None
    """The run folder [runs/NAME]."""
    seed: int = 0
    """Decides everything random: the split, the start, the order, the augmentation."""
    device: Device = "auto"
    """Where to compute [a GPU if there is one]."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """With torchrun or accelerate launch: the whole model in every process, or a part of it in each (FSDP2)."""
    save_minutes: float | None = None
    """Save the state every so many minutes too [after each epoch]."""
    resume: bool = False
    """Continue the run in --out where it stopped, to the same bits."""
    overwrite: bool = False
    """Replace the run in --out."""

    def __post_init__(self) -> None:
        at_least("seed", self.seed, 0)
        positive("save-minutes", self.save_minutes)
        if self.resume and self.overwrite:
            raise InputError("--resume and --overwrite: got both, expected one of them")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Everything about a run."""

    data: Annotated[str, tyro.conf.arg(metavar="DATA")]
    """A folder (a sub-folder per class, or train/, val/ and test/ of such), a .csv, .tsv or .parquet list of path and
    label, .tar shards, 'hf:owner/name', 'digits', or a torchvision data set."""
    source: Annotated[DataConfig, tyro.conf.arg(name="data")] = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: Annotated[OptimConfig, tyro.conf.arg(name="training")] = field(default_factory=OptimConfig)
    augment: Annotated[AugmentConfig, tyro.conf.arg(name="augmentation")] = field(default_factory=AugmentConfig)
    distill: Annotated[DistillConfig, tyro.conf.arg(name="distillation")] = field(default_factory=DistillConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, for YAML."""
        return typing.cast(dict[str, Any], to_plain(asdict(self)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainConfig":
        """The inverse of :meth:`to_dict`. Raises :class:`InputError` for an unknown key or a value of a wrong type.

        >>> config = TrainConfig(data="digits", optim=OptimConfig(epochs=3))
        >>> TrainConfig.from_dict(config.to_dict()) == config
        True
        """
        return typing.cast(TrainConfig, from_plain(cls, values, "config"))
