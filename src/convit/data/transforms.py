"""From an RGB image to the tensor that a model sees: evaluation and training pipelines, and the seeded data set."""

import math
import random
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform, rand_augment_transform
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import RandomResizedCropAndInterpolation, str_to_pil_interp
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import transforms

from convit.data.image_sets import ImageSet, listing
from convit.errors import InputError, nearest

Transform = Callable[[Image.Image], Tensor]

_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
_CROPS = ("random_resized", "shift", "none")
_RAND_AUGMENT = re.compile(r"rand(-(m|n|mmax)\d+|-(mstd|p)\d+(\.\d+)?|-inc[01])*")
_AUGMENT = 4  # keeps augmentation independent of the draws in sampling.py


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How an image becomes a model's input; stored beside the weights."""

    image_size: tuple[int, int]
    """(height, width) in pixels."""
    mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN
    """Mean of red, green and blue, each channel in 0 .. 1."""
    std: tuple[float, ...] = IMAGENET_DEFAULT_STD
    """Standard deviation of red, green and blue."""
    interpolation: str = "bicubic"
    crop_pct: float = 1.0
    """Part of the resized image, along each side, that the centre crop keeps."""

    def __post_init__(self) -> None:
        _check(
            "image_size",
            self.image_size,
            _numbers(self.image_size, 2, whole=True, above=0),
            "(height, width) in pixels",
        )
        _check("mean", self.mean, _numbers(self.mean, 3), "three numbers: red, green, blue")
        _check("std", self.std, _numbers(self.std, 3, above=0), "three numbers above 0: red, green, blue")
        _choice("interpolation", self.interpolation, _INTERPOLATIONS)
        _check(
            "crop_pct", self.crop_pct, _fraction(self.crop_pct) and self.crop_pct > 0, "a number above 0 and up to 1"
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON knows them: tuples become lists."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`. Raises :class:`InputError` for an unknown or missing key, or a wrong value.

        >>> preprocess = Preprocess(image_size=(32, 48))
        >>> Preprocess.from_dict(preprocess.to_dict()) == preprocess
        True
        """
        known = [field.name for field in fields(cls)]
        if unknown := [key for key in values if key not in known]:
            raise InputError(f"preprocessing: unknown key {listing(unknown)}; expected {listing(known)}")
        if missing := [key for key in known if key not in values]:
            raise InputError(f"preprocessing: no key {listing(missing)}; expected {listing(known)}")
        fitting: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**fitting)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What training does to an image, in the order of these fields. All of it off: crop ``none`` and the defaults."""

    crop: str = "random_resized"
    """``random_resized``: a random part, resized. ``shift``: moved by up to an eighth of the size, with the border
    reflected, for images of 64 px or less. ``none``: as in evaluation, with nothing cropped for ``crop_pct``."""
    scale: float = 0.08
    """Smallest part of the image's area that ``random_resized`` takes, 0 .. 1."""
    flip: bool = False
    """Mirror every other image."""
    rand_augment: str = ""
    """timm's RandAugment, such as ``rand-m9-mstd0.5-inc1``; empty for none."""
    color_jitter: float = 0.0
    """Largest relative change of brightness, contrast and saturation, 0 .. 1; also together with RandAugment."""
    random_erasing: float = 0.0
    """Probability, 0 .. 1, that a rectangle is replaced by noise."""

    def __post_init__(self) -> None:
        _choice("crop", self.crop, _CROPS)
        _check("scale", self.scale, _fraction(self.scale) and self.scale > 0, "a number above 0 and up to 1")
        _check("color_jitter", self.color_jitter, _fraction(self.color_jitter), "a number from 0 to 1")
        _check("random_erasing", self.random_erasing, _fraction(self.random_erasing), "a number from 0 to 1")
        known = not self.rand_augment or _RAND_AUGMENT.fullmatch(self.rand_augment) is not None
        _check("rand_augment", self.rand_augment, known, "timm's form, such as 'rand-m9-mstd0.5-inc1', or '' for none")


def evaluation_transform(preprocess: Preprocess) -> Transform:
    """RGB image of any size -> (3, height, width) float32: resize to cover the size, centre crop, normalise.

    The image keeps its aspect ratio. It is scaled until it just covers ``image_size / crop_pct``; a crop of
    ``image_size`` is taken from its centre; each channel becomes ``(value / 255 - mean) / std``. Can be pickled.

    >>> transform = evaluation_transform(Preprocess(image_size=(32, 48)))
    >>> transform(Image.new("RGB", (100, 70))).shape
    torch.Size([3, 32, 48])
    """
    return transforms.Compose(
        [
            _LimitAspect(preprocess.image_size),
            create_transform(
                input_size=(3, *preprocess.image_size),
                interpolation=preprocess.interpolation,
                mean=preprocess.mean,
                std=preprocess.std,
                crop_pct=preprocess.crop_pct,
            ),
        ]
    )


def training_transform(preprocess: Preprocess, augmentation: Augmentation) -> Transform:
    """RGB image of any size -> (3, height, width) float32, augmented at random and normalised.

    It draws from the global generators of Python, NumPy and torch: call it inside :func:`seeded`. Can be pickled.
    """
    steps = _crop_steps(preprocess, augmentation)
    if augmentation.flip:
        steps.append(transforms.RandomHorizontalFlip())
    if augmentation.rand_augment:
        steps.append(_rand_augment(preprocess, augmentation.rand_augment))
    if jitter := augmentation.color_jitter:
        steps.append(transforms.ColorJitter(jitter, jitter, jitter))
    steps += [transforms.ToTensor(), transforms.Normalize(preprocess.mean, preprocess.std)]
    if augmentation.random_erasing:
        steps.append(RandomErasing(augmentation.random_erasing, mode="pixel", device="cpu"))
    return transforms.Compose(steps)


def _crop_steps(preprocess: Preprocess, augmentation: Augmentation) -> list[Callable[[Any], Any]]:
    size = preprocess.image_size
    if augmentation.crop == "random_resized":
        scale = (augmentation.scale, 1.0)
        return [RandomResizedCropAndInterpolation(size, scale=scale, interpolation=preprocess.interpolation)]
    # timm's own pipeline without its last two steps, the conversion to a tensor and the normalisation
    cover = create_transform(input_size=(3, *size), interpolation=preprocess.interpolation, crop_pct=1.0)
    steps: list[Callable[[Any], Any]] = [_LimitAspect(size), *cover.transforms[:-2]]
    if augmentation.crop == "shift":
        padding = [size[1] // 8, size[0] // 8]  # left and right, top and bottom
        steps.append(transforms.RandomCrop(size, padding=padding, padding_mode="reflect"))
    return steps


def _rand_augment(preprocess: Preprocess, config: str) -> Callable[[Image.Image], Image.Image]:
    options = {
        "translate_const": int(0.45 * min(preprocess.image_size)),
        "img_mean": tuple(min(255, round(255 * mean)) for mean in preprocess.mean),
        "interpolation": str_to_pil_interp(preprocess.interpolation),
    }
    return rand_augment_transform(config, options)


class _LimitAspect:
    """Cuts the ends off a very long image, which the centre crop drops anyway.

    Without it a strip of 10 x 20000 pixels, scaled until its short side covers the crop, takes gigabytes.
    """

    def __init__(self, image_size: tuple[int, int], times: int = 8) -> None:
        self.limit = times * max(image_size) / min(image_size)

    def __call__(self, image: Image.Image) -> Image.Image:
        width, height = image.size
        longest = math.ceil(self.limit * min(width, height))
        if max(width, height) <= longest:
            return image
        left, top = max(width - longest, 0) // 2, max(height - longest, 0) // 2
        return image.crop((left, top, left + min(width, longest), top + min(height, longest)))


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Within it the global CPU generators of Python, NumPy and torch are functions of the key; after it, as before.

    >>> with seeded(7, 0):
    ...     first = random.random()
    >>> with seeded(7, 0):
    ...     again = random.random()
    >>> first == again
    True
    """
    before = random.getstate(), np.random.get_state(), torch.default_generator.get_state()  # noqa: NPY002  timm uses it
    seeds = np.random.SeedSequence(key).generate_state(3).tolist()
    random.seed(seeds[0])
    np.random.seed(seeds[1])  # noqa: NPY002  timm's RandAugment draws from it
    torch.default_generator.manual_seed(seeds[2])  # not torch.manual_seed, which would reseed the devices too
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002  see above
        torch.default_generator.set_state(before[2])


class SampleDataset(Dataset[tuple[Tensor, int]]):
    """``dataset[epoch, index]`` -> (tensor, target), everything random in it a function of (seed, epoch, index).

    So a sample is the same in whichever process and in whatever order it is made. A plain ``index`` means epoch 0;
    ``dataset[epoch, index, times]`` is the same image in another variation.
    An image that does not decode raises :class:`InputError` that names it: no other image takes its place.

    Args:
        images: where the images come from.
        transform: RGB image -> tensor; may draw from the global generators.
        seed: 0 or more.
        cache: decode every image now and keep it, width * height * 3 bytes each; worker processes share them.
    """

    def __init__(self, images: ImageSet, transform: Transform, *, seed: int, cache: bool = False) -> None:
        if seed < 0:
            raise InputError(f"seed: {seed}; expected an integer of at least 0")
        self.images = images
        self.transform = transform
        self.seed = seed
        self._pixels = [np.asarray(images.read(i)) for i in range(len(images))] if cache else None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, ...] | int) -> tuple[Tensor, int]:
        key = key if isinstance(key, tuple) else (0, key)
        index = key[1]
        image = Image.fromarray(self._pixels[index]) if self._pixels is not None else self.images.read(index)
        with seeded(self.seed, _AUGMENT, *key):
            return self.transform(image), int(self.images.targets[index])


def _check(name: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise InputError(f"{name}: {value!r}; expected {expected}")


def _choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f"{name}: {value!r}{nearest(str(value), known)}; expected one of {listing(known)}")


def _fraction(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


def _numbers(values: Any, count: int, *, whole: bool = False, above: float = -math.inf) -> bool:
    kinds = (int,) if whole else (int, float)
    return (
        isinstance(values, tuple)
        and len(values) == count
        and all(type(value) in kinds and above < value < math.inf for value in values)
    )
