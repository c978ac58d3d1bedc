"""Pipelines: shapes, golden values, parity with timm; and samples that are functions of their key."""

import pickle
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms

from convit.data import (
    ArrayImages,
    Augmentation,
    EpochSampler,
    FileImages,
    Preprocess,
    SampleDataset,
    evaluation_transform,
    normalised,
    seeded,
    training_transform,
)
from convit.data.transforms import pixels_of, shifted
from convit.errors import InputError
from convit.preprocess import prepared
from tests.helpers import noise, refused

EVERYTHING = Augmentation(
    crop="random_resized", flip=True, rand_augment="rand-m9-mstd0.5-inc1", color_jitter=0.3, random_erasing=0.5
)
CROPS = ["random_resized", "shift", "none"]


def image_set(count: int = 12, size: int = 32) -> ArrayImages:
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return ArrayImages(pixels, [f"x/{i}" for i in range(count)], [i % 3 for i in range(count)], ["a", "b", "c"])


def test_evaluation_crops_the_centre_and_normalises() -> None:
    image = Image.new("RGB", (12, 4), (255, 0, 0))
    image.paste((0, 255, 0), (4, 0, 8, 4))
    preprocess = Preprocess(image_size=(4, 4), mean=(0.5, 0.0, 0.25), std=(0.5, 2.0, 1.0))
    tensor = evaluation_transform(preprocess)(image)
    # green alone: (0 - 0.5) / 0.5, (1 - 0) / 2, (0 - 0.25) / 1
    assert torch.equal(tensor, torch.tensor([-1.0, 0.5, -0.25]).view(3, 1, 1).expand(3, 4, 4))


def test_evaluation_is_that_of_every_command() -> None:
    """Which test_preprocess.py holds to timm's."""
    preprocess = Preprocess(image_size=(32, 48), crop_pct=0.875)
    found = evaluation_transform(preprocess)(noise(101, 157))
    assert found.dtype == torch.float32
    assert torch.equal(found, torch.from_numpy(prepared(noise(101, 157), preprocess)))


@pytest.mark.parametrize("size", [(8, 8), (32, 32), (24, 40)])
@pytest.mark.parametrize("crop", CROPS)
def test_training_on_tiny_and_rectangular_images(crop: str, size: tuple[int, int]) -> None:
    transform = training_transform(Preprocess(image_size=size), replace(EVERYTHING, crop=crop))
    images = ArrayImages(np.zeros((1, 8, 8), np.uint8), ["x"], [0], ["a"])
    dataset = SampleDataset(images, transform, seed=0)
    for epoch in range(40):
        tensor, _ = dataset[epoch, 0]
        assert tensor.shape == (3, *size)
        assert torch.isfinite(tensor).all()


def test_no_augmentation_is_the_evaluation_without_its_margin() -> None:
    preprocess = Preprocess(image_size=(16, 24))
    image = noise(40, 40)
    plain = training_transform(preprocess, Augmentation(crop="none"))(image)
    assert torch.equal(normalised(plain[None], preprocess)[0], evaluation_transform(preprocess)(image))


def test_a_batch_is_normalised_to_the_same_bits_as_one_picture() -> None:
    preprocess = Preprocess(image_size=(16, 16), mean=(0.3, 0.51, 0.07), std=(0.2, 0.31, 0.9))
    every = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).convert("RGB")
    pictures = [every, noise(16, 16)]
    batch = normalised(torch.stack([pixels_of(picture) for picture in pictures]), preprocess)
    assert torch.equal(batch, torch.stack([evaluation_transform(preprocess)(picture) for picture in pictures]))
    assert batch.is_contiguous()


@pytest.mark.parametrize(
    "options",
    [
        {"crop": "random_resized"},
        {"crop": "shift"},
        {"flip": True},
        {"rand_augment": "rand-m9-n3"},
        {"color_jitter": 0.5},
        {"random_erasing": 1.0},
    ],
)
def test_each_option_has_an_effect(options: dict[str, object]) -> None:
    preprocess = Preprocess(image_size=(16, 16))
    transform = training_transform(preprocess, Augmentation(**{"crop": "none"} | options))
    dataset = SampleDataset(image_set(1, 16), transform, seed=0)
    plain = evaluation_transform(preprocess)(dataset.images.read(0))
    assert any(not torch.equal(normalised(dataset[epoch, 0][0][None], preprocess)[0], plain) for epoch in range(10))


@pytest.mark.parametrize("size", [(32, 32), (24, 40), (8, 9), (7, 64), (1, 5)])
def test_shift_is_torchvisions_random_crop(size: tuple[int, int]) -> None:
    height, width = size
    image = noise(height, width)
    crop = transforms.RandomCrop(size, padding=[width // 8, height // 8], padding_mode="reflect")
    for seed in range(30):
        with seeded(seed):
            expected = crop(image)
        with seeded(seed):
            assert np.array_equal(shifted(image), expected)


def test_shift_moves_by_up_to_an_eighth() -> None:
    pixels = np.zeros((1, 16, 16), np.uint8)
    pixels[0, 8, 8] = 255
    preprocess = Preprocess(image_size=(16, 16), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    transform = training_transform(preprocess, Augmentation(crop="shift"))
    dataset = SampleDataset(ArrayImages(pixels, ["x"], [0], ["a"]), transform, seed=0)
    found = {tuple(dataset[epoch, 0][0][0].nonzero()[0].tolist()) for epoch in range(300)}
    assert found == {(y, x) for y in range(6, 11) for x in range(6, 11)}


@pytest.mark.parametrize(("crop", "workers"), [(crop, workers) for crop in CROPS for workers in (1, 2)])
def test_samples_are_the_same_in_any_number_of_workers(crop: str, workers: int) -> None:
    transform = training_transform(Preprocess(image_size=(16, 16)), replace(EVERYTHING, crop=crop))
    dataset = SampleDataset(image_set(), transform, seed=5)
    sampler = EpochSampler(len(dataset), seed=5)
    sampler.set_epoch(2)
    alone = [dataset[key] for key in sampler]
    random.seed(99)
    torch.manual_seed(99)
    spread = list(DataLoader(dataset, sampler=sampler, num_workers=workers, batch_size=None))
    assert all(torch.equal(a[0], b[0]) and a[1] == b[1] for a, b in zip(alone, spread, strict=True))


def test_samples_depend_on_every_part_of_the_key() -> None:
    transform = training_transform(Preprocess(image_size=(16, 16)), EVERYTHING)
    same = ArrayImages(np.repeat(image_set().pixels[:1], 2, axis=0), ["x", "y"], [0, 1], ["a", "b"])
    dataset = SampleDataset(same, transform, seed=0)
    others = [dataset[1, 0], dataset[0, 1], dataset[0, 0, 1], SampleDataset(same, transform, seed=1)[0, 0]]
    assert all(not torch.equal(dataset[0, 0][0], other[0]) for other in others)
    assert not torch.equal(dataset[0, 0, 1][0], dataset[0, 0, 2][0])
    assert (dataset[0, 1, 1][1], dataset[0, 0, 1][1]) == (1, 0)
    assert torch.equal(dataset[0][0], dataset[0, 0][0])
    assert (dataset[0][1], dataset[1][1]) == (0, 1)


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002  the global state is tested


def test_global_random_state_is_put_back() -> None:
    dataset = SampleDataset(image_set(), training_transform(Preprocess(image_size=(16, 16)), EVERYTHING), seed=0)
    with seeded(1):
        expected = draws()
    with seeded(1):
        dataset[0, 0]
        assert draws() == expected
    failing = SampleDataset(image_set(), lambda image: draws() and 1 / 0, seed=0)
    with seeded(1):
        with pytest.raises(ZeroDivisionError):
            failing[0]
        assert draws() == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_image_is_named_in_one_line_and_never_replaced(workers: int, tmp_path: Path) -> None:
    noise(8, 8).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("rubbish")
    images = FileImages(tmp_path, ["a.png", "b.png"], [0, 1], ["a", "b"])
    dataset = SampleDataset(images, evaluation_transform(Preprocess(image_size=(8, 8))), seed=0)
    message = refused(lambda: list(DataLoader(dataset, num_workers=workers, batch_size=2)))
    assert message.startswith(f"{tmp_path / 'b.png'}: not an image")


def test_transforms_and_datasets_can_be_pickled() -> None:
    preprocess = Preprocess(image_size=(16, 16))
    for transform in (evaluation_transform(preprocess), training_transform(preprocess, EVERYTHING)):
        dataset = SampleDataset(image_set(), transform, seed=0)
        assert torch.equal(pickle.loads(pickle.dumps(dataset))[3, 1][0], dataset[3, 1][0])


SQUARE = partial(Preprocess, image_size=(32, 32))


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (SQUARE, "image_size", (32,)),
        (SQUARE, "image_size", (32, 0)),
        (SQUARE, "image_size", (32.0, 32)),
        (SQUARE, "mean", (0.5,)),
        (SQUARE, "std", (0.5, 0.0, 0.5)),
        (SQUARE, "interpolation", "bicubik"),
        (SQUARE, "crop_pct", 0),
        (SQUARE, "crop_pct", 1.5),
        (Augmentation, "crop", "centre"),
        (Augmentation, "scale", 0),
        (Augmentation, "rand_augment", "rand-9"),
        (Augmentation, "rand_augment", "m9"),
        (Augmentation, "color_jitter", -1),
        (Augmentation, "random_erasing", 2),
    ],
)
def test_values_out_of_their_ranges(kind: Callable[..., object], name: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"^{name}: got .*, expected "):
        kind(**{name: value})


def test_preprocess_dictionary() -> None:
    values = Preprocess(image_size=(32, 48), crop_pct=0.9).to_dict()
    assert values["image_size"] == [32, 48]
    assert Preprocess.from_dict(values) == Preprocess(image_size=(32, 48), crop_pct=0.9)
    with pytest.raises(InputError, match="unknown key 'size'"):
        Preprocess.from_dict(values | {"size": 3})
    with pytest.raises(InputError, match="no key 'mean'"):
        Preprocess.from_dict({key: value for key, value in values.items() if key != "mean"})
