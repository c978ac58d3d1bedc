"""Strangers' pictures of other depths than a photo's: one full scale a data set, greys and colours that are odd."""

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import convit
from convit.data.decoding import UnreadableImageError
from convit.data.images import as_rgb, read_image
from convit.data.select import Evaluating, Learning, check, select
from convit.errors import InputError
from convit.preprocess import Preprocess, prepared, to_rgb
from tests.cli.command import SMALL, Shell


def greys(root: Path, dtype: str, largest: float, count: int = 4) -> Path:
    """Two classes of grey TIFFs, dark and bright, whose values go up to ``largest``."""
    rng = np.random.default_rng(0)
    for name, low, high in (("dark", 0.0, 0.2), ("light", 0.6, 1.0)):
        (root / name).mkdir(parents=True)
        for i in range(count):
            values = rng.uniform(low, high, (8, 8)) * largest
            values[0, 0] = high * largest
            Image.fromarray(values.astype(dtype)).save(root / name / f"{i}.tif")
    return root


def full_scale(data: Path) -> float | None:
    return check(select(str(data), Learning())).full_scale


# -- one full scale a data set -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "largest", "expected"),
    [
        ("float32", 1.02, 1),
        ("float32", 0.9, 1),
        ("float32", 255, 255),
        ("float32", 261, 255),
        ("uint16", 255, 255),
        ("uint16", 1, 1),
        ("uint16", 4095, 4095),
        ("uint16", 3000, 4095),
        ("uint16", 65535, 65535),
        ("int32", 200, 255),
        ("uint8", 200, None),
    ],
)
def test_full_scale_of_a_data_set(dtype: str, largest: float, expected: float | None, tmp_path: Path) -> None:
    assert full_scale(greys(tmp_path / "data", dtype, largest)) == expected


@pytest.mark.parametrize(("dtype", "largest"), [("float32", 7.5), ("uint16", 9), ("int32", 2_000_000), ("float32", -3)])
def test_an_unclear_full_scale_is_refused(dtype: str, largest: float, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data: .*which value is white is not clear; expected .*--full-scale"):
        full_scale(greys(tmp_path / "data", dtype, largest))


def test_two_full_scales_are_refused(tmp_path: Path) -> None:
    data = greys(tmp_path / "data", "float32", 1)
    Image.fromarray(np.full((8, 8), 3000, np.uint16)).save(data / "dark/12bit.png")
    with pytest.raises(InputError, match="expected one full scale"):
        full_scale(data)


def test_dark_and_light_pictures_keep_their_order() -> None:
    """Picture by picture, a dark float picture would be seen as if it were of another scale than a light one."""
    dark, light = (Image.fromarray(np.full((4, 4), value, np.float32)) for value in (0.9, 200.0))
    seen = [np.asarray(to_rgb(image, 255))[0, 0, 0] for image in (dark, light)]
    assert seen == [1, 200]


@pytest.mark.parametrize(
    ("mode", "value", "scale", "expected"),
    [
        ("I;16", 4095, 4095, 255),
        ("I;16", 2048, 4095, 128),
        ("F", 1.02, 1, 255),
        ("I", 1, 1, 255),
        ("F", 127.5, 255, 128),
    ],
)
def test_levels_of_a_full_scale(mode: str, value: float, scale: float, expected: int) -> None:
    dtype = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
    image = Image.fromarray(np.full((3, 5), value, dtype))
    assert image.mode == mode
    assert np.array_equal(np.asarray(to_rgb(image, scale)), np.full((3, 5, 3), expected))
    own = Preprocess(image_size=(4, 4), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), full_scale=scale)
    assert prepared(image, own) == pytest.approx(np.full((3, 4, 4), expected / 255), abs=1e-6)


def test_values_of_another_scale_are_refused() -> None:
    """A few hot pixels are clipped; a picture of another scale would come out white, or black."""
    sixteen = np.full((10, 10), 30000, np.uint16)
    with pytest.raises(InputError, match="30000, where 4095 is white"):
        to_rgb(Image.fromarray(sixteen), 4095)
    hot = np.full((10, 10), 2048, np.uint16)
    hot[0, :3] = 65535
    assert np.asarray(to_rgb(Image.fromarray(hot), 4095))[:, :, 0].max() == 255
    for values in (np.full((4, 4), 51, np.float32), np.full((4, 4), 17, np.uint16), np.full((4, 4), -9, np.int32)):
        with pytest.raises(InputError, match="8 bits"):  # of a model that learned from 8 bits
            to_rgb(Image.fromarray(values))


def test_a_run_keeps_its_full_scale(tmp_path: Path, shell: Shell) -> None:
    data, out = greys(tmp_path / "xrays", "uint16", 4095), tmp_path / "run"
    done = shell("train", data, "--out", out, *SMALL, "--epochs", 2, "--lr", "0.01")
    assert done.status == 0, done
    assert "--full-scale: 4095" in done.out + done.err
    assert json.loads((out / "config.json").read_text())["full_scale"] == 4095
    classifier = convit.load(out)
    assert classifier.preprocess.full_scale == 4095
    bright = Image.fromarray(np.full((8, 8), 4095, np.uint16))
    white = Image.new("RGB", (8, 8), "white")
    assert classifier.probabilities(bright).equal(classifier.probabilities(white))
    Image.fromarray(np.full((8, 8), 60000, np.uint16)).save(tmp_path / "16bit.png")
    bright.save(tmp_path / "12bit.png")
    white.save(tmp_path / "white.png")
    got = shell("predict", out, *(tmp_path / f"{name}.png" for name in ("12bit", "white", "16bit")), "--json")
    found = json.loads(got.out)
    assert got.status == 1
    assert found[0]["predictions"] == found[1]["predictions"]
    assert "4095 is white" in found[2]["reason"]
    assert shell("evaluate", out, data).status == 0
    resumed = shell("train", "--resume", out)
    assert resumed.status == 0, resumed
    shell.refuses("train", "--resume", out, "--full-scale", 255, says=("full-scale: got 255", "began with"))


def test_the_full_scale_can_be_said(tmp_path: Path, shell: Shell) -> None:
    data, out = greys(tmp_path / "data", "float32", 7.5), tmp_path / "run"
    shell.refuses("train", data, "--out", out, *SMALL, says=("data", "--full-scale"))
    assert not out.exists()
    assert shell("train", data, "--out", out, "--full-scale", "7.5", *SMALL).status == 0
    assert convit.load(out).preprocess.full_scale == 7.5
    refused = shell.refuses(
        "train", data, "--out", tmp_path / "b", "--full-scale", "1", *SMALL, says=("where 1 is white",)
    )
    assert "dark/0.tif" in refused


def test_a_model_of_8_bits_says_what_it_takes_for_white(trained: Path, tmp_path: Path, shell: Shell) -> None:
    Image.fromarray(np.full((8, 8), 65535, np.uint16)).save(tmp_path / "deep.png")
    Image.new("L", (8, 8), 255).save(tmp_path / "plain.png")
    got = shell("predict", trained, tmp_path / "deep.png", tmp_path / "plain.png", "--json")
    deep, plain = json.loads(got.out)
    assert deep["predictions"] == plain["predictions"]
    assert got.status == 0
    assert "deep.png" in got.err
    assert "65535" in got.err
    assert "plain.png" not in got.err
    said = select(str(greys(tmp_path / "data", "uint16", 65535)), Evaluating()).notes
    assert "65535" in said[0]
    assert select(str(tmp_path / "data"), Evaluating(full_scale=65535)).notes == ()


# -- depths that Pillow does not write ---------------------------------------------------------------------------------


def png(pixels: np.ndarray) -> bytes:
    """A PNG of 16 bits a colour, which Pillow does not write."""
    return png_of([row.astype(">u2").tobytes() for row in pixels], (pixels.shape[1], len(pixels)), 16, 2)


def png_of(rows: list[bytes], size: tuple[int, int], bits: int, colours: int, *others: tuple[bytes, bytes]) -> bytes:
    """A PNG of any depth and kind of colours, with other chunks before its pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", *size, bits, colours, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [(b"IHDR", header), *others, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, body) for kind, body in chunks)


@pytest.mark.parametrize(
    ("bits", "row", "clear", "expected"),
    [
        (1, b"\x40", 0, [255, 255, 255, 255]),
        (2, b"\x1b", 1, [0, 255, 170, 255]),
        (4, b"\x01\x2f", 1, [0, 255, 34, 255]),
        (8, b"\x00\x07\x50\xff", 7, [0, 255, 80, 255]),
        (16, b"\x00\x00\x00\x07\x50\x00\xff\xff", 7, [0, 255, 80, 255]),
    ],
)
def test_the_transparent_grey_of_a_png_is_white_at_every_depth(
    bits: int, row: bytes, clear: int, expected: list[int], tmp_path: Path
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png_of([row], (4, 1), bits, 0, (b"tRNS", struct.pack(">H", clear))))
    for picture in (read_image(path), as_rgb(Image.open(path))):
        assert np.asarray(picture)[0, :, 0].tolist() == expected


@pytest.mark.parametrize(("largest", "whole"), [(255, False), (4095, False), (65535, True)])
def test_wide_colours_whose_upper_bits_are_empty_are_refused(largest: int, whole: bool, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, largest, (8, 8, 3), endpoint=True)
    (tmp_path / "a.png").write_bytes(png(pixels))
    if whole:
        assert read_image(tmp_path / "a.png").size == (8, 8)
    else:
        with pytest.raises(UnreadableImageError, match="16 bits"):
            read_image(tmp_path / "a.png")


def tiff(pixels: bytes, size: tuple[int, int], bits: int, *tags: tuple[int, int, int]) -> bytes:
    """A grey TIFF of any depth, with other tags: (number, type, value)."""
    entries = [(256, 3, size[0]), (257, 3, size[1]), (258, 3, bits), (259, 3, 1), (262, 3, 1), (277, 3, 1)]
    entries = sorted([*entries, (278, 3, size[1]), (279, 4, len(pixels)), *tags])
    start = 8 + 2 + 12 * (len(entries) + 1) + 4
    entries = sorted([*entries, (273, 4, start)])
    table = b"".join(struct.pack("<HHII", number, kind, 1, value) for number, kind, value in entries)
    return struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + table + b"\0\0\0\0" + pixels


def test_a_tiff_of_12_bits_says_what_is_white(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(b"\x00\x0f\xff\x80\x08\x00", (4, 1), 12))  # 0, 4095, 2048, 2048
    for picture in (read_image(path), as_rgb(Image.open(path))):
        assert np.asarray(picture)[0, :, 0].tolist() == [0, 255, 128, 128]


def test_signed_greys_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(b"\x80\xff\x00\x7f", (4, 1), 8, (339, 3, 2)))
    with pytest.raises(UnreadableImageError, match=r"a\.tif: .* signed"):
        read_image(tmp_path / "a.tif")


def test_a_deep_tiff_in_which_zero_is_white_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 65000, np.uint16)).save(tmp_path / "a.tif", tiffinfo={262: 0})
    with pytest.raises(UnreadableImageError, match="0 is white"):
        read_image(tmp_path / "a.tif", 65535)


def test_pixels_that_are_no_numbers_are_counted(tmp_path: Path) -> None:
    values = np.full((4, 5), 0.2, np.float32)
    values[0, :2] = np.nan
    Image.fromarray(values).save(tmp_path / "few.tif")
    assert np.asarray(read_image(tmp_path / "few.tif"))[0, :3, 0].tolist() == [0, 0, 51]
    values[0] = np.nan
    Image.fromarray(values).save(tmp_path / "many.tif")
    with pytest.raises(UnreadableImageError, match=r"many\.tif: 5 grey values that are no finite numbers"):
        read_image(tmp_path / "many.tif")
