"""Strangers' pictures that are very large or very long: within bounds of memory and time."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convit.data import decoding
from convit.data.decoding import UnreadableImageError
from convit.data.images import image_size, read_image
from convit.preprocess import covering, to_rgb
from tests.helpers import noise

PEAK = r"""
import re, sys
from pathlib import Path
from convit.data.images import as_rgb, image_size, read_image
image = read_image(Path(sys.argv[1]))
peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
print(*image.size, *image_size(Path(sys.argv[1])), int(peak[1]) // 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the memory that was taken")
def test_a_huge_jpeg_is_decoded_reduced(tmp_path: Path) -> None:
    Image.new("L", (12_000, 9000), 80).save(tmp_path / "huge.jpg")
    done = subprocess.run(
        [sys.executable, "-c", PEAK, tmp_path / "huge.jpg"], check=True, capture_output=True, text=True
    )
    *sizes, megabytes = map(int, done.stdout.split())
    assert sizes == [6000, 4500] * 2
    assert megabytes < 500


def test_pixels_of_other_formats_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise(90, 120).save(tmp_path / "a.jpg")
    noise(90, 120).save(tmp_path / "a.png")
    whole = read_image(tmp_path / "a.jpg")
    assert np.array_equal(whole, Image.open(tmp_path / "a.jpg"))  # below the limit: as it is
    monkeypatch.setattr(decoding, "MOST_PIXELS", 90 * 120 - 1)
    assert read_image(tmp_path / "a.jpg").size == image_size(tmp_path / "a.jpg") == (60, 45)
    with pytest.raises(UnreadableImageError, match=r"a\.png: an image of 120 x 90 pixels.*expected at most 10799"):
        read_image(tmp_path / "a.png")
    monkeypatch.setattr(decoding, "MOST_PIXELS", 10)
    with pytest.raises(UnreadableImageError, match=r"a\.jpg: .*expected at most 10 pixels"):
        read_image(tmp_path / "a.jpg")


def test_a_huge_progressive_jpeg_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.jpg", progressive=True)
    monkeypatch.setattr(decoding, "MOST_COEFFICIENTS", 64 * 64 * 3 - 1)
    for most in (decoding.MOST_PIXELS, 64 * 64 // 4):  # also where it would be decoded reduced
        monkeypatch.setattr(decoding, "MOST_PIXELS", most)
        with pytest.raises(UnreadableImageError, match=r"a\.jpg: a progressive JPEG of 64 x 64 pixels"):
            read_image(tmp_path / "a.jpg")
    monkeypatch.undo()
    monkeypatch.setattr(decoding, "MOST_SCANNED", 64 * 64 * 5)
    with pytest.raises(UnreadableImageError, match=r"a\.jpg: a JPEG of \d+ scans of 64 x 64 pixels"):
        read_image(tmp_path / "a.jpg")
    assert image_size(tmp_path / "a.jpg") == (64, 64)


def test_transparency_is_composited_strip_by_strip(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1200, 1100, 4), dtype=np.uint8)
    image = Image.fromarray(pixels)
    white = Image.new("RGBA", image.size, "white")
    assert np.array_equal(to_rgb(image), Image.alpha_composite(white, image).convert("RGB"))


@pytest.mark.parametrize("size", [(2001, 20), (17, 3000), (4000, 300), (33, 290)])
def test_a_long_picture_is_resized_before_it_is_cropped(size: tuple[int, int]) -> None:
    image = noise(size[1], size[0])
    short, long = min(size), max(size)
    sides = (64, int(64 * long / short))
    whole = image.resize(sides if size[0] < size[1] else sides[::-1], Image.Resampling.BICUBIC)
    left, top = round((whole.width - 64) / 2), round((whole.height - 64) / 2)
    assert np.array_equal(covering(image, (64, 64)), whole.crop((left, top, left + 64, top + 64)))


def test_the_part_of_a_very_long_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    image = noise(7, 9001)
    whole = np.asarray(covering(image, (64, 64)), int)
    monkeypatch.setattr("convit.preprocess.LARGEST", 1)
    assert np.abs(np.asarray(covering(image, (64, 64)), int) - whole).max() <= 2
