"""Nearly the same pictures: what is found, and what is not."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from convit.checks.near import ALIKE, hashes, near_pairs, thumb
from tests.checks.made import picture


def thumbs(*pictures: Image.Image) -> np.ndarray:
    return np.array([thumb(one.convert("L")) for one in pictures], np.uint8)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "cropped": lambda image: image.crop((6, 4, image.width - 6, image.height - 4)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "smaller": lambda image: image.resize((40, 30)),
    "of another shape": lambda image: image.resize((80, 80)),
    "grey": lambda image: image.convert("L"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_changed_copies_are_found(change: Callable[[Image.Image], Image.Image]) -> None:
    originals = [picture(seed) for seed in range(12)]
    found = near_pairs(thumbs(*originals, *map(change, originals)))
    assert sorted(map(tuple, found.pairs.tolist())) == [(i, i + 12) for i in range(12)]
    assert found.likeness.min() >= ALIKE


def test_different_pictures_are_not_found() -> None:
    assert not len(near_pairs(thumbs(*map(picture, range(200)))).pairs)


def test_a_mirrored_picture_is_another_one() -> None:
    one = picture(0)
    assert not len(near_pairs(thumbs(one, one.transpose(Image.Transpose.FLIP_LEFT_RIGHT))).pairs)


def test_pictures_of_one_colour_are_in_no_pair() -> None:
    assert not len(near_pairs(thumbs(*(Image.new("RGB", (40, 40), (c, c, c)) for c in (0, 90, 91)))).pairs)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_to_compare(count: int) -> None:
    assert near_pairs(thumbs(*map(picture, range(count))).reshape(count, 32, 32)).pairs.shape == (0, 2)


def test_where_different_pictures_are_alike_more_is_asked_for() -> None:
    base = np.asarray(picture(0, (32, 32)), np.int64)
    rng = np.random.default_rng(0)
    noisy = [(base + rng.integers(-25, 26, base.shape)).clip(0, 255).astype(np.uint8) for _ in range(60)]
    found = near_pairs(thumbs(*map(Image.fromarray, [*noisy, noisy[0] // 2])))
    assert found.alike > ALIKE
    assert found.pairs.tolist() == [[0, 60]]


def test_hash_is_that_of_the_definition() -> None:
    """The bits of one picture, from the sums of the formula."""
    grey = thumbs(picture(3))[0].astype(float)
    code = int(hashes(grey[None].astype(np.uint8))[0, 0])
    place = np.arange(32)
    for bit, (u, v) in list(enumerate((u, v) for u in range(8) for v in range(8)))[1::9]:
        cosines = [np.cos(np.pi * (2 * place + 1) * frequency / 64) for frequency in (u, v)]
        assert bool(code >> (bit - 1) & 1) == (float(cosines[0] @ grey @ cosines[1]) > 0)
