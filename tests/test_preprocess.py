"""The one evaluation transform: pixel by pixel that of timm and torchvision, which others train and test with."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform

from convit.preprocess import INTERPOLATIONS, Preprocess, covering, prepared
from tests.helpers import noise


def timms(image: Image.Image, preprocess: Preprocess) -> np.ndarray:
    transform = create_transform(
        input_size=(3, *preprocess.image_size),
        interpolation=preprocess.interpolation,
        crop_pct=preprocess.crop_pct,
        mean=preprocess.mean,
        std=preprocess.std,
    )
    return transform(image).numpy()


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("crop_pct", [1.0, 0.875, 0.7])
@pytest.mark.parametrize("image_size", [(16, 16), (24, 40), (33, 20), (7, 7)])
def test_pixels_are_timms(image_size: tuple[int, int], crop_pct: float, interpolation: str) -> None:
    preprocess = Preprocess(
        image_size=image_size, crop_pct=crop_pct, interpolation=interpolation, mean=(0.1, 0.5, 0.485)
    )
    for height, width in ((50, 50), (61, 40), (37, 121), (16, 16), (1, 1), (5, 17), (24, 40)):
        found = prepared(noise(height, width, seed=height), preprocess)
        assert found.flags.c_contiguous
        assert found.dtype == np.float32
        assert np.array_equal(found, timms(noise(height, width, seed=height), preprocess)), (height, width)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(4, 50), st.integers(4, 50), st.floats(0.3, 1))
def test_pixels_at_any_size(height: int, width: int, rows: int, columns: int, crop_pct: float) -> None:
    preprocess = Preprocess(image_size=(rows, columns), crop_pct=crop_pct, interpolation="bilinear")
    image = noise(height, width, seed=height)
    found = prepared(image, preprocess)
    assert found.shape == (3, rows, columns)
    assert np.array_equal(found, timms(image, preprocess))  # also of long ones, of which a part is resized


def test_a_long_strip_is_cut_before_it_is_enlarged() -> None:
    """Whole, this one would take 24 GB."""
    strip = Image.new("RGB", (2_000_000, 3), (255, 0, 0))
    strip.paste((0, 0, 255), (999_990, 0, 1_000_011, 3))
    assert covering(strip, (64, 64)).getcolors() == [(64 * 64, (0, 0, 255))]
