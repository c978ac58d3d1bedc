"""Strangers' pictures: of other depths, formats and sizes than a photo's, whole or made to hurt."""

import io
import json
import os
import struct
import subprocess
import sys
import time
import types
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin

import convit
from convit.data import decoding
from convit.data.decoding import UnreadableImageError
from convit.data.images import as_rgb, image_size, read_image
from convit.data.select import Evaluating, Learning, check, pictures, select
from convit.errors import InputError
from convit.preprocess import Preprocess, covering, prepared, to_rgb
from tests.cli.command import SMALL, Shell, photos
from tests.cli.conftest import animals, shell, trained

__all__ = ["animals", "shell", "trained"]  # fixtures


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


# -- what opens a picture ----------------------------------------------------------------------------------------------


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def turned() -> Image.Image:
    """A picture that a phone held upright wrote."""
    lying = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8))
    lying.getexif()[0x0112] = 6
    return lying


def test_open_files_and_bytes(trained: Path, tmp_path: Path) -> None:
    content = encoded(turned(), exif=turned().getexif())
    path = tmp_path / "a.png"
    path.write_bytes(content)
    classifier = convit.load(trained)
    expected = classifier.probabilities(path)
    with path.open("rb") as file:
        assert classifier.probabilities(file).equal(expected)
    for given in (content, io.BytesIO(content), [io.BytesIO(content)]):
        assert classifier.probabilities(given).equal(expected)
    assert len(classifier.predict(io.BytesIO(content), top_k=2)) == 2
    with path.open(encoding="latin-1") as text, pytest.raises(InputError, match=r"a\.png.*'rb'"):
        classifier.predict(text)
    with path.open("rb") as closed:
        pass
    with pytest.raises(InputError, match=r"a\.png.*closed file"):
        classifier.predict(closed)
    with pytest.raises(InputError, match="not an image"):
        classifier.predict(io.BytesIO(b"no picture"))


def test_pictures_in_every_form_of_bytes_paths_and_arrays(trained: Path, tmp_path: Path) -> None:
    path, classifier = tmp_path / "a.png", convit.load(trained)
    grey = np.random.default_rng(0).integers(0, 255, (8, 9), np.uint8)
    Image.fromarray(grey).save(path)
    expected, content = classifier.probabilities(path), path.read_bytes()

    class Named(os.PathLike[str]):
        def __fspath__(self) -> str:
            return str(path)

    read = io.BytesIO(content)
    read.read()
    for given in (bytearray(content), memoryview(content), Named(), read, grey, grey[..., None], [grey[..., None]]):
        assert classifier.probabilities(given).equal(expected)
    assert len(classifier.predict(Named(), top_k=2)) == 2


def test_no_other_program_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*arguments: object, **options: object) -> None:
        raise AssertionError(f"started: {arguments}")

    for name in ("Popen", "call", "check_call", "run"):
        monkeypatch.setattr(subprocess, name, started)
    for content in (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", b"%PDF-1.4\n", b"8BPS\0\1"):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(UnreadableImageError, match=r"a\.png: not an image .*JPEG, PNG"):
            read_image(tmp_path / "a.png")


def test_one_place_opens_pictures() -> None:
    package = Path(convit.__file__).parent
    sources = [*package.rglob("*.py"), *package.parent.glob("convit_*.py")]
    assert [p.name for p in sources if "Image.open(" in p.read_text()] == ["decoding.py"]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("kind", ["zTXt", "iTXt", "iCCP", "many"])
def test_a_png_with_a_long_text_is_read(kind: str, after: bool, tmp_path: Path) -> None:
    image = turned()
    content = encoded(image, exif=image.getexif())
    packed = zlib.compress(b"x" * 3_000_000)
    chunks = {
        "zTXt": [(b"zTXt", b"key\0\0" + packed)],
        "iTXt": [(b"iTXt", b"key\0\1\0\0\0" + packed)],
        "iCCP": [(b"iCCP", b"profile\0\0" + packed)],
        "many": [(b"tEXt", b"key%d\0" % i + b"x" * 900_000) for i in range(80)],
    }[kind]
    text = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    at = content.index(b"IEND") - 4 if after and kind != "iCCP" else 33
    (tmp_path / "long.png").write_bytes(content[:at] + text + content[at:])
    (tmp_path / "plain.png").write_bytes(content)
    assert np.array_equal(read_image(tmp_path / "long.png"), read_image(tmp_path / "plain.png"))
    assert image_size(tmp_path / "long.png") == (9, 12)


def many_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    content = encoded(Image.new("L", (64, 64), 90), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * count + b"\xff\xd9"


def test_a_jpeg_of_thousands_of_scans_is_refused(tmp_path: Path) -> None:
    (tmp_path / "slow.jpg").write_bytes(many_scans(4000))
    began = time.perf_counter()
    with pytest.raises(UnreadableImageError, match=r"slow\.jpg: a JPEG of 40\d\d scans .*expected at most 500"):
        read_image(tmp_path / "slow.jpg")
    assert time.perf_counter() - began < 5
    (tmp_path / "fine.jpg").write_bytes(many_scans(20))
    assert read_image(tmp_path / "fine.jpg").size == (64, 64)
    exif = Image.Exif()
    exif[0x010E] = "\xff\xda" * 600  # as an embedded thumbnail has it
    Image.new("RGB", (9, 9)).save(tmp_path / "thumbnail.jpg", exif=exif.tobytes() + b"\xff\xda" * 600)
    assert read_image(tmp_path / "thumbnail.jpg").size == (9, 9)


# -- very large and very long ------------------------------------------------------------------------------------------

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
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8))
    noise.save(tmp_path / "a.jpg")
    noise.save(tmp_path / "a.png")
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
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    short, long = min(size), max(size)
    sides = (64, int(64 * long / short))
    whole = image.resize(sides if size[0] < size[1] else sides[::-1], Image.Resampling.BICUBIC)
    left, top = round((whole.width - 64) / 2), round((whole.height - 64) / 2)
    assert np.array_equal(covering(image, (64, 64)), whole.crop((left, top, left + 64, top + 64)))


def test_the_part_of_a_very_long_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (7, 9001, 3), dtype=np.uint8))
    whole = np.asarray(covering(image, (64, 64)), int)
    monkeypatch.setattr("convit.preprocess.LARGEST", 1)
    assert np.abs(np.asarray(covering(image, (64, 64)), int) - whole).max() <= 2


# -- readers that may be missing ---------------------------------------------------------------------------------------


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 40


@pytest.fixture
def no_heif(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "formats", lambda: ("JPEG", "PNG"))


@pytest.mark.usefixtures("no_heif")
def test_heic_files_are_counted(trained: Path, tmp_path: Path, shell: Shell) -> None:
    album = photos(tmp_path / "album", {"ape": 4, "bee": 4})
    for name in ("ape/1.HEIC", "ape/2.heic", "bee/3.heif"):
        (album / name).write_bytes(HEIC)
    selection = select(str(album), Learning())
    (note,) = selection.notes
    assert note.startswith("3 HEIC files left out, such as ape/1.HEIC: pip install 'convit[heic]'")
    got = shell("predict", trained, album)
    assert (got.status, got.err.strip()) == (0, note.replace("ape/1.HEIC", "1.HEIC"))
    assert len(got.out.splitlines()) == 8
    got = shell("predict", trained, album / "ape/1.HEIC", album / "ape/0.png", "--json")
    assert got.status == 1
    assert "pip install 'convit[heic]'" in json.loads(got.out)[0]["reason"]
    (tmp_path / "only").mkdir()
    (tmp_path / "only/a.heic").write_bytes(HEIC)
    shell.refuses("predict", trained, tmp_path / "only", says=("no picture in it", "convit[heic]"))
    for path in (album / "bee").glob("*.png"):
        path.unlink()
    with pytest.raises(InputError, match=r"no image in class 'bee'.*convit\[heic\]"):
        select(str(album), Learning())


def test_heic_files_are_read_where_the_reader_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Made(ImageFile.ImageFile):
        format = "HEIF"

        def _open(self) -> None:
            self._mode, self._size = "RGB", (2, 1)

        def load(self) -> None:  # type: ignore[override]
            self.im = Image.new("RGB", (2, 1), "red").im

    def register_heif_opener() -> None:
        Image.register_open("HEIF", Made, lambda start: start[4:12] == b"ftypheic")

    module = types.ModuleType("pillow_heif")
    module.register_heif_opener = register_heif_opener  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pillow_heif", module)
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    decoding.formats.cache_clear()
    try:
        (tmp_path / "a.heic").write_bytes(HEIC)
        assert pictures([tmp_path]).paths == (tmp_path / "a.heic",)
        assert np.asarray(read_image(tmp_path / "a.heic")).tolist() == [[[255, 0, 0], [255, 0, 0]]]
    finally:
        decoding.formats.cache_clear()


def test_formats_by_their_names(tmp_path: Path) -> None:
    """Every format that is named is read, whatever the file is called; Pillow's limits stay as they were."""
    limits = PngImagePlugin.MAX_TEXT_CHUNK, Image.MAX_IMAGE_PIXELS
    for form in decoding.formats():
        if form == "HEIF":
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.new("RGB", (5, 7), "red").save(tmp_path / "a.png", form)
        assert read_image(tmp_path / "a.png").size == (5, 7), form
    assert limits == (PngImagePlugin.MAX_TEXT_CHUNK, Image.MAX_IMAGE_PIXELS)


# -- found by attacks --------------------------------------------------------------------------------------------------


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


def test_odd_metadata_is_no_warning_of_a_command(tmp_path: Path, shell: Shell, trained: Path) -> None:
    """Pillow's warning names a file of its own, not the picture."""
    twice = struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 0x112, 3, 2, 6, 1, 0)  # an orientation of two values
    Image.new("RGB", (8, 9), "red").save(tmp_path / "a.jpg", exif=b"Exif\0\0" + twice)
    with pytest.warns(UserWarning, match="too many entries"):
        read_image(tmp_path / "a.jpg")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        got = shell("predict", trained, tmp_path / "a.jpg")
    assert (got.status, got.err) == (0, "")


def test_signed_greys_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(b"\x80\xff\x00\x7f", (4, 1), 8, (339, 3, 2)))
    with pytest.raises(UnreadableImageError, match=r"a\.tif: .* signed"):
        read_image(tmp_path / "a.tif")


def test_pixels_that_are_no_numbers_are_counted(tmp_path: Path) -> None:
    values = np.full((4, 5), 0.2, np.float32)
    values[0, :2] = np.nan
    Image.fromarray(values).save(tmp_path / "few.tif")
    assert np.asarray(read_image(tmp_path / "few.tif"))[0, :3, 0].tolist() == [0, 0, 51]
    values[0] = np.nan
    Image.fromarray(values).save(tmp_path / "many.tif")
    with pytest.raises(UnreadableImageError, match=r"many\.tif: 5 grey values that are no finite numbers"):
        read_image(tmp_path / "many.tif")


@pytest.mark.parametrize("kind", [kind for kind in decoding.formats() if kind not in ("HEIF", "DIB")])
def test_no_damage_to_a_picture_gets_past(kind: str, tmp_path: Path) -> None:
    """Of a hundred damaged files of each format, each is read or refused in one line that begins with its path."""
    path, rng = tmp_path / "a", np.random.default_rng(0)
    noise = rng.integers(0, 255, (16, 16, 3), np.uint8)
    Image.fromarray(noise).save(path, kind)
    whole = path.read_bytes()
    for _ in range(100):
        damaged = bytearray(whole)
        for at in rng.integers(0, min(len(whole), 300), 3):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            line = ""
            try:
                read_image(path)
            except UnreadableImageError as error:
                line = str(error)
        assert not line or (line.startswith(f"{path}: ") and "\n" not in line)


@pytest.mark.parametrize(("largest", "whole"), [(255, False), (4095, False), (65535, True)])
def test_wide_colours_whose_upper_bits_are_empty_are_refused(largest: int, whole: bool, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, largest, (8, 8, 3), endpoint=True)
    (tmp_path / "a.png").write_bytes(png(pixels))
    if whole:
        assert read_image(tmp_path / "a.png").size == (8, 8)
    else:
        with pytest.raises(UnreadableImageError, match="16 bits"):
            read_image(tmp_path / "a.png")


def test_a_deep_tiff_in_which_zero_is_white_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 65000, np.uint16)).save(tmp_path / "a.tif", tiffinfo={262: 0})
    with pytest.raises(UnreadableImageError, match="0 is white"):
        read_image(tmp_path / "a.tif", 65535)


def test_a_palette_that_is_missing_is_damage_in_every_command(tmp_path: Path, shell: Shell, trained: Path) -> None:
    Image.new("P", (8, 8)).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    at = content.index(b"PLTE") - 4
    (length,) = struct.unpack(">I", content[at : at + 4])
    (tmp_path / "a.png").write_bytes(content[:at] + content[at + 12 + length :])
    with pytest.raises(UnreadableImageError, match=r"a\.png: damaged"):
        read_image(tmp_path / "a.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    got = shell("predict", trained, tmp_path)
    assert got.status == 1
    assert "1 of 2" in got.err
    data = photos(tmp_path / "data", {"ape": 2, "bee": 2})
    (data / "ape/a.png").write_bytes((tmp_path / "a.png").read_bytes())
    assert [image.name for image in check(select(str(data), Learning())).bad] == ["ape/a.png"]


def test_pictures_of_pillow_that_cannot_be_read_are_refused(tmp_path: Path, trained: Path) -> None:
    Image.effect_noise((64, 64), 90).save(tmp_path / "a.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:600])
    closed = Image.new("RGB", (8, 8))
    closed.close()
    for picture in (Image.open(tmp_path / "cut.jpg"), Image.new("RGB", (0, 5)), closed):
        with pytest.raises(InputError):
            convit.load(trained).predict(picture)


def test_results_do_not_replace_files_of_the_run(tmp_path: Path, shell: Shell, trained: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    for option, name in (("--csv", "model.safetensors"), ("--json", "config.json")):
        before = (trained / name).read_bytes()
        shell.refuses("predict", trained, tmp_path / "b.png", option, trained / name, says=(name,))
        assert (trained / name).read_bytes() == before


@pytest.mark.parametrize("suffix", [".jp2", ".jpe", ".dib", ".pnm"])
def test_other_suffixes_of_formats_that_are_read(suffix: str, tmp_path: Path) -> None:
    kind = {".jp2": "JPEG2000", ".jpe": "JPEG", ".dib": "DIB", ".pnm": "PPM"}[suffix]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.new("RGB", (8, 8), (i * 90, 9, 9)).save(tmp_path / name / f"{i}{suffix}", kind)
    assert len(select(str(tmp_path), Learning()).splits["train"]) == 2
