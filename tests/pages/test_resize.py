"""The page prepares a photo as Python does, to the byte."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convit.preprocess import INTERPOLATIONS, Preprocess, covering, prepared
from tests.helpers import noise
from tests.pages.node import needs_node, run

CODE = """
  return given.cases.map(({ file, width, height, preprocess, to }) => {
    const all = bytes(file);
    const photo = { width, height, rows: (top, count) => all.subarray(4 * width * top, 4 * width * (top + count)) };
    const found = covered(photo, preprocess);
    fs.writeFileSync(to, found);
    fs.writeFileSync(`${to}-normal`, normalisedPixels(found, preprocess));
    return coveringOf(width, height, preprocess).size;
  });
"""
SIZES = ((50, 50), (61, 40), (37, 121), (16, 16), (1, 1), (5, 17), (24, 40), (300, 211))


def both(cases: list[tuple[Image.Image, Preprocess]], folder: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """The bytes and the normalised values that JavaScript makes of each image."""
    given: list[dict[str, Any]] = []
    for number, (image, preprocess) in enumerate(cases):
        np.asarray(image.convert("RGBA")).tofile(folder / f"{number}.bin")
        about = {"width": image.width, "height": image.height, "preprocess": preprocess.to_dict()}
        given.append(about | {"file": str(folder / f"{number}.bin"), "to": str(folder / f"{number}.out")})
    run(["classifier/resize.js"], CODE, folder, {"cases": given})
    found = []
    for number, (_, preprocess) in enumerate(cases):
        shape = (*preprocess.image_size, 3)
        raw = np.fromfile(folder / f"{number}.out", np.uint8).reshape(shape)
        found.append((raw, np.fromfile(folder / f"{number}.out-normal", np.float32).reshape(shape)))
    return found


@needs_node
def test_bytes_are_pillows(tmp_path: Path) -> None:
    cases = [
        (
            noise(height, width, seed=height),
            Preprocess(image_size=size, crop_pct=part, interpolation=interpolation, mean=(0.1, 0.5, 0.485)),
        )
        for interpolation in INTERPOLATIONS
        for part in (1.0, 0.875, 0.7)
        for size in ((16, 16), (24, 40), (33, 20), (7, 7))
        for height, width in SIZES
    ]
    for (image, preprocess), (raw, normal) in zip(cases, both(cases, tmp_path), strict=True):
        about = (image.size, preprocess)
        expected = covering(image, preprocess.image_size, preprocess.interpolation, preprocess.crop_pct)
        assert np.array_equal(raw, np.asarray(expected)), about
        assert np.array_equal(normal.transpose(2, 0, 1), prepared(image, preprocess)), about


@needs_node
@pytest.mark.parametrize("size", [(2_000_000, 3), (3, 600_000)])
def test_a_long_strip(size: tuple[int, int], tmp_path: Path) -> None:
    """Python resizes the part that is kept alone, which may round otherwise by one."""
    strip = Image.new("RGB", size, (255, 0, 0))
    middle = (size[0] // 2, size[1] // 2)
    strip.paste((0, 0, 255), (max(0, middle[0] - 10), max(0, middle[1] - 10), middle[0] + 11, middle[1] + 11))
    preprocess = Preprocess(image_size=(64, 64))
    ((raw, _),) = both([(strip, preprocess)], tmp_path)
    assert np.abs(raw.astype(int) - np.asarray(covering(strip, (64, 64))).astype(int)).max() <= 1
