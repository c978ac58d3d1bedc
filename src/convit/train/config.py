"""What can be set about a run. The comments under the fields are the help of ``convit train``.

``None`` means: decided from the data, printed before training starts, and written into the run's ``config.yaml``.
"""

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from convit.errors import InputError, nearest

Device = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """What to learn from."""

    val_fraction: float = 0.1
    """Part of each class that is held out to choose the best epoch, where the data has no validation part."""
    fraction: float | None = None
    """Learn from this part of each class, drawn by seed, for 1 / fraction times the epochs, as in the paper [all]."""
    per_class: int | None = None
    """Learn from so many images of each class, drawn by seed [all]."""
    classes: int | None = None
    """Take so many of the classes, drawn by seed [all]."""
    data_root: Path | None = None
    """Where data sets are downloaded to [$CONVIT_DATA, or ~/.cache/convit/data]."""
    skip_bad: bool = False
    """Leave out files that do not decode, and list them in the run folder."""
    workers: int | None = None
    """Processes that load images [none if the images are kept in memory, else one per core, at most 8]."""

    def __post_init__(self) -> None:
        _between("val-fraction", self.val_fraction, 0.01, 0.9)
        if self.fraction is not None:
            _positive("fraction", self.fraction)
            _between("fraction", self.fraction, 0.0, 1.0)
        if self.fraction is not None and self.per_class is not None:
            raise InputError("--fraction and --per-class: got both, expected one of them")
        _at_least("per-class", self.per_class, 1)
        _at_least("classes", self.classes, 2)
        _at_least("workers", self.workers, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """What to train."""

    model: str | None = None
    """Name of the model, from 'convit models' [by the size of the images]."""
    image_size: tuple[int, ...] | None = None
    """Side of the model's input in pixels, or height and width [by the size of the images]."""
    patch_size: int | None = None
    """Side of a patch in pixels [the model's own]."""
    local_up_to_layer: int | None = None
    """Number of blocks that are gated positional self-attention; 0 for a plain vision transformer [the model's]."""
    locality_strength: float | None = None
    """How sharply each head looks at its cell of the convolution kernel at the start; 1 in the paper [2]."""
    drop_path: float | None = None
    """Probability that a residual branch is left out for an image, at the last block [0.05]."""
    pretrained: bool = False
    """Start from the authors' ImageNet weights, fetched from the Hugging Face Hub [of convit_tiny_patch16_224]."""
    weights: Path | None = None
    """Start from a file of weights (.safetensors, .pth), or from the model of another run, with a new head."""
    freeze: int = 0
    """Leave the patch embedding and so many of the first blocks as they start."""

    def __post_init__(self) -> None:
        if self.image_size is not None and not (1 <= len(self.image_size) <= 2 and min(self.image_size) > 0):
            raise InputError(f"image-size: got {self.image_size}, expected one or two positive numbers of pixels")
        _at_least("patch-size", self.patch_size, 1)
        _at_least("local-up-to-layer", self.local_up_to_layer, 0)
        _positive("locality-strength", self.locality_strength)
        if self.drop_path is not None:
            _between("drop-path", self.drop_path, 0.0, 0.9)
        _at_least("freeze", self.freeze, 0)
        started = self.pretrained or self.weights is not None
        if self.freeze and not started:
            raise InputError(
                f"freeze: got {self.freeze} for a start from scratch, expected --pretrained or --weights too"
            )
        if self.pretrained and self.weights is not None:
            raise InputError("--pretrained and --weights: got both, expected one of them")


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """How to train: AdamW, a linear warm-up, then a cosine."""

    recipe: Literal["small", "finetune"] | None = None
    """Where the values of open options come from [finetune with --pretrained or --weights, else small]."""
    epochs: int | None = None
    """Times that every image is shown [1300 / sqrt(images), from 10 to 200; fewer when fine-tuning]."""
    batch_size: int | None = None
    """Images per step, an even number [a sixteenth of the images, a power of two from 8 to 128]."""
    lr: float | None = None
    """Peak learning rate [0.002 * sqrt(batch size / 64); half of it when fine-tuning]."""
    layer_decay: float | None = None
    """Learning rate of each block over that of the next [1; 0.75 when fine-tuning]."""
    min_lr: float = 1e-5
    """Learning rate at the end."""
    warmup_epochs: float | None = None
    """Length of the warm-up [a tenth of the epochs, at most 5]."""
    weight_decay: float = 0.05
    """Weight decay; none for biases, norms, gates and embeddings."""
    clip_grad: float | None = 1.0
    """Largest norm of the gradient; None for no limit."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Type of the matrix products; weights stay fp32."""

    def __post_init__(self) -> None:
        _at_least("epochs", self.epochs, 1)
        _at_least("batch-size", self.batch_size, 2)
        if self.batch_size is not None and self.batch_size % 2:
            raise InputError(f"batch-size: got {self.batch_size}, expected an even number (mixup pairs the images)")
        _positive("lr", self.lr)
        if self.layer_decay is not None:
            _between("layer-decay", self.layer_decay, 0.01, 1.0)
        _positive("clip-grad", self.clip_grad)
        for name, value in (("min-lr", self.min_lr), ("weight-decay", self.weight_decay)):
            _between(name, value, 0.0, 1.0)
        if self.warmup_epochs is not None:
            _between("warmup-epochs", self.warmup_epochs, 0.0, 10_000.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig:
    """How images are varied in training."""

    flip: bool | None = None
    """Mirror every other image [unless the data set has digits, letters or signs]."""
    crop: Literal["random_resized", "shift", "none"] = "random_resized"
    """'random_resized' takes a part of the image, 'shift' moves it by up to an eighth, 'none' takes its middle."""
    crop_scale: float | None = None
    """Smallest part of the area that 'random_resized' takes [0.6 up to 64 px, 0.35 above]."""
    rand_augment: str | None = None
    """timm's RandAugment, such as rand-m9-mstd0.5-inc1, '' for none [none up to 16 px, rand-m6-mstd0.5-inc1 above]."""
    color_jitter: float = 0.0
    """Largest change of brightness, contrast and saturation."""
    random_erasing: float = 0.0
    """Probability that a rectangle is replaced by noise."""
    mixup: float | None = None
    """Mixup's alpha; 0 for none [0.2]."""
    cutmix: float | None = None
    """CutMix's alpha; 0 for none [none up to 16 px, 1 above]."""
    mix_prob: float = 0.5
    """Probability that a batch is mixed."""
    label_smoothing: float = 0.1
    """Part of the target that is spread over all classes."""

    def __post_init__(self) -> None:
        if self.crop_scale is not None:
            _positive("crop-scale", self.crop_scale)
            _between("crop-scale", self.crop_scale, 0.0, 1.0)
        for name in ("color_jitter", "random_erasing", "mix_prob", "label_smoothing"):
            _between(name.replace("_", "-"), getattr(self, name), 0.0, 1.0)
        for name in ("mixup", "cutmix"):
            value = getattr(self, name)
            if value is not None:
                _between(name, value, 0.0, 100.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Where it goes and where it runs."""

    out: Path | None = None
    """The run folder [runs/NAME]."""
    seed: int = 0
    """Decides everything random: the split, the start, the order, the augmentation."""
    device: Device = "auto"
    """Where to compute [a GPU if there is one]."""
    resume: bool = False
    """Continue the run in --out where it stopped, to the same bits."""
    overwrite: bool = False
    """Replace the run in --out."""

    def __post_init__(self) -> None:
        _at_least("seed", self.seed, 0)
        if self.resume and self.overwrite:
            raise InputError("--resume and --overwrite: got both, expected one of them")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Everything about a run."""

    data: Annotated[str, tyro.conf.arg(metavar="DATA")]
    """A folder with a sub-folder per class (or with train/ and val/ or test/), 'digits', or a torchvision data set."""
    source: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, for YAML."""
        return typing.cast(dict[str, Any], _plain(asdict(self)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainConfig":
        """The inverse of :meth:`to_dict`. Raises :class:`InputError` for an unknown key or a value of a wrong type.

        >>> config = TrainConfig(data="digits", optim=OptimConfig(epochs=3))
        >>> TrainConfig.from_dict(config.to_dict()) == config
        True
        """
        return typing.cast(TrainConfig, _from_plain(cls, values, "config"))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


def _from_plain(cls: type, values: object, where: str) -> Any:
    """A dataclass from nested plain values; unknown keys and wrong types are refused."""
    if not isinstance(values, Mapping):
        raise InputError(f"{where}: got {values!r}, expected keys and values")
    hints = typing.get_type_hints(cls)
    known = {entry.name for entry in fields(cls)}
    for key in values:
        if key not in known:
            raise InputError(f"{where}: unknown key {key!r}{nearest(str(key), known)}")
    for entry in fields(cls):
        if entry.name not in values and entry.default is MISSING and entry.default_factory is MISSING:
            raise InputError(f"{where}: no key {entry.name!r}, expected one")
    return cls(**{key: _as(hints[key], value, f"{where}.{key}") for key, value in values.items()})


def _as(hint: Any, value: Any, where: str) -> Any:
    """``value`` as the type ``hint`` says."""
    if is_dataclass(hint) and isinstance(hint, type):
        return _from_plain(hint, value, where)
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in options:
            return None
        (hint,) = (option for option in options if option is not type(None))
        return _as(hint, value, where)
    if origin is Literal and value in options:
        return value
    if origin is tuple and isinstance(value, list) and all(type(item) is int for item in value):
        return tuple(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and type(value) is int:
        return float(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    raise InputError(f"{where}: got {value!r}, expected {getattr(hint, '__name__', hint)}")


def _between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InputError(f"{name}: got {value}, expected {low:g} to {high:g}")


def _positive(name: str, value: float | None) -> None:
    if value is not None and not 0 < value < float("inf"):
        raise InputError(f"{name}: got {value}, expected a positive number")


def _at_least(name: str, value: int | None, low: int) -> None:
    if value is not None and value < low:
        raise InputError(f"{name}: got {value}, expected at least {low}")
