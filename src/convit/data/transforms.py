"""From an RGB image to the tensor that a model sees: evaluation and training pipelines, and the seeded data set."""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data import rand_augment_transform
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import RandomResizedCropAndInterpolation, str_to_pil_interp
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import transforms

from convit.data.copies import Copies
from convit.data.image_sets import ImageSet
from convit.data.sampling import Draw
from convit.errors import InputError
from convit.preprocess import Preprocess, check, check_choice, covering, is_part, prepared

Transform = Callable[[Image.Image], Tensor]

_CROPS = ("random_resized", "shift", "none")
_RAND_AUGMENT = re.compile(r"rand(-(m|n|mmax)\d+|-(mstd|p)\d+(\.\d+)?|-inc[01])*")


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
        check_choice("crop", self.crop, _CROPS)
        check("scale", self.scale, is_part(self.scale) and self.scale > 0, "a number above 0 and up to 1")
        check("color_jitter", self.color_jitter, is_part(self.color_jitter), "a number from 0 to 1")
        check("random_erasing", self.random_erasing, is_part(self.random_erasing), "a number from 0 to 1")
        known = not self.rand_augment or _RAND_AUGMENT.fullmatch(self.rand_augment) is not None
        check("rand_augment", self.rand_augment, known, "timm's form, such as 'rand-m9-mstd0.5-inc1', or '' for none")


def evaluation_transform(preprocess: Preprocess) -> Transform:
    """RGB image of any size -> (3, height, width) float32: :func:`convit.preprocess.prepared`. Can be pickled.

    >>> transform = evaluation_transform(Preprocess(image_size=(32, 48)))
    >>> transform(Image.new("RGB", (100, 70))).shape
    torch.Size([3, 32, 48])
    """
    return partial(_evaluated, preprocess=preprocess)


def _evaluated(image: Image.Image, preprocess: Preprocess) -> Tensor:
    return torch.from_numpy(prepared(image, preprocess))


def training_transform(preprocess: Preprocess, augmentation: Augmentation) -> Transform:
    """RGB image of any size -> (3, height, width), augmented at random, for :func:`normalised`: uint8; with random
    erasing, which is after it, float32 and normalised.

    It draws from the global generators of Python, NumPy and torch: call it inside :func:`seeded`. Can be pickled.
    """
    steps = _crop_steps(preprocess, augmentation)
    if augmentation.flip:
        steps.append(transforms.RandomHorizontalFlip())
    if augmentation.rand_augment:
        steps.append(_rand_augment(preprocess, augmentation.rand_augment))
    if jitter := augmentation.color_jitter:
        steps.append(transforms.ColorJitter(jitter, jitter, jitter))
    steps.append(pixels_of)
    if augmentation.random_erasing:
        steps += [
            partial(_one_normalised, preprocess=preprocess),
            RandomErasing(augmentation.random_erasing, mode="pixel", device="cpu"),
        ]
    return transforms.Compose(steps)


def pixels_of(image: Image.Image) -> Tensor:
    """The values of an RGB image, (3, height, width) uint8."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def normalised(pixels: Tensor, preprocess: Preprocess) -> Tensor:
    """Values of a batch as the model takes them: ``(value / 255 - mean) / std``, to the same bits as
    :func:`convit.preprocess.prepared`, on any device.

    For a whole batch where it is needed: image by image it takes longer, and four times the memory on the way there.

    Args:
        pixels: (B, 3, height, width) uint8; float32 ones are normalised already and come back as they are.
        preprocess: mean and std.

    >>> normalised(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), Preprocess(image_size=(2, 2))).shape
    torch.Size([1, 3, 2, 2])
    """
    if pixels.is_floating_point():
        return pixels
    # Tensors, not numbers: by a number CUDA multiplies with its inverse, which rounds otherwise.
    white, mean, std = (
        torch.tensor(values, dtype=torch.float32, device=pixels.device).reshape(-1, 1, 1)
        for values in ((255.0,), preprocess.mean, preprocess.std)
    )
    values = torch.empty(pixels.shape, dtype=torch.float32, device=pixels.device).copy_(pixels)  # rows in order
    return values.div_(white).sub_(mean).div_(std)


def _one_normalised(pixels: Tensor, preprocess: Preprocess) -> Tensor:
    return normalised(pixels[None], preprocess)[0]


def _crop_steps(preprocess: Preprocess, augmentation: Augmentation) -> list[Callable[[Any], Any]]:
    size = preprocess.image_size
    if augmentation.crop == "random_resized":
        scale = (augmentation.scale, 1.0)
        return [RandomResizedCropAndInterpolation(size, scale=scale, interpolation=preprocess.interpolation)]
    steps: list[Callable[[Any], Any]] = [partial(covering, image_size=size, interpolation=preprocess.interpolation)]
    if augmentation.crop == "shift":
        steps.append(shifted)
    return steps


def shifted(image: Image.Image) -> Image.Image:
    """An image moved by up to an eighth of its width and height, at random; what is missing at a border is its mirror
    image.

    The same image to the bit as torchvision's ``RandomCrop`` with reflected padding, in half the time: only the part
    that is seen is made.
    """
    values = np.asarray(image)
    rows, columns = (_moved(length, length // 8) for length in values.shape[:2])
    return Image.fromarray(values[rows[:, None], columns])


def _moved(length: int, most: int) -> NDArray[np.int64]:
    """For each place of a line of so many the place that moves there, at random by up to ``most``."""
    start = int(torch.randint(0, 2 * most + 1, size=(1,)).item()) - most
    places = np.abs(np.arange(start, start + length))  # mirrored at the beginning
    return np.minimum(places, 2 * (length - 1) - places)  # and at the end


def _rand_augment(preprocess: Preprocess, config: str) -> Callable[[Image.Image], Image.Image]:
    options = {
        "translate_const": int(0.45 * min(preprocess.image_size)),
        "img_mean": tuple(min(255, round(255 * mean)) for mean in preprocess.mean),
        "interpolation": str_to_pil_interp(preprocess.interpolation),
    }
    made = rand_augment_transform(config, options)
    for step in made.ops:
        if step.name.startswith("Posterize"):
            step.level_fn = partial(_at_least_one_bit, step.level_fn)
    return made


def _at_least_one_bit(level_fn: Callable[..., tuple[int, ...]], level: float, options: dict[str, Any]) -> tuple[int]:
    """The bits of each colour that posterize keeps. timm also asks for 0, a black picture, which Pillow 13 refuses."""
    return (max(1, *level_fn(level, options)),)


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
    with _generators_kept():
        _seed(*key)
        yield


def _seed(*key: int) -> None:
    seeds = np.random.SeedSequence(key).generate_state(3).tolist()
    random.seed(seeds[0])
    np.random.seed(seeds[1])  # noqa: NPY002  timm's RandAugment draws from it
    torch.default_generator.manual_seed(seeds[2])  # not torch.manual_seed, which would reseed the devices too


@contextmanager
def _generators_kept() -> Iterator[None]:
    before = random.getstate(), np.random.get_state(), torch.default_generator.get_state()  # noqa: NPY002  timm uses it
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
        images: where the images come from; or copies of them.
        transform: RGB image -> tensor; may draw from the global generators.
        seed: 0 or more.
        first: ``(epochs, transform)``: another transform for so many epochs at the beginning.
    """

    def __init__(
        self, images: ImageSet | Copies, transform: Transform, *, seed: int, first: tuple[int, Transform] | None = None
    ) -> None:
        if seed < 0:
            raise InputError(f"seed: {seed}; expected an integer of at least 0")
        self.images = images
        self.transform = transform
        self.first = first or (0, transform)
        self.seed = seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, ...] | int) -> tuple[Tensor, int]:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[tuple[int, ...] | int]) -> list[tuple[Tensor, int]]:
        """Several samples, which a DataLoader asks for: the generators are put back once, not after each."""
        with _generators_kept():
            return [self._sample(key if isinstance(key, tuple) else (0, key)) for key in keys]

    def _sample(self, key: tuple[int, ...]) -> tuple[Tensor, int]:
        epoch, index = key[:2]
        transform = self.first[1] if epoch < self.first[0] else self.transform
        image = self.images.read(index)
        _seed(self.seed, Draw.AUGMENTATION, *key)
        return transform(image), int(self.images.targets[index])
