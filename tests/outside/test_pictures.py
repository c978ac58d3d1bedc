"""Strangers' pictures: of other formats than a photo's, in every form that one can hand over, whole or made to hurt."""

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
from convit.data.images import image_size, read_image
from convit.data.select import Learning, check, pictures, select
from convit.errors import InputError
from tests.cli.command import Shell, photos
from tests.helpers import encoded, noise

# -- what opens a picture ----------------------------------------------------------------------------------------------


def turned() -> Image.Image:
    """A picture that a phone held upright wrote."""
    lying = noise(9, 12)
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
    assert image_size(tmp_path / "long.png") == (12, 9)  # as it is stored


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


@pytest.mark.parametrize("kind", [kind for kind in decoding.formats() if kind not in ("HEIF", "DIB")])
def test_no_damage_to_a_picture_gets_past(kind: str, tmp_path: Path) -> None:
    """Of a hundred damaged files of each format, each is read or refused in one line that begins with its path."""
    path, rng = tmp_path / "a", np.random.default_rng(0)
    pixels = rng.integers(0, 255, (16, 16, 3), np.uint8)
    Image.fromarray(pixels).save(path, kind)
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


@pytest.mark.parametrize("suffix", [".jp2", ".jpe", ".dib", ".pnm"])
def test_other_suffixes_of_formats_that_are_read(suffix: str, tmp_path: Path) -> None:
    kind = {".jp2": "JPEG2000", ".jpe": "JPEG", ".dib": "DIB", ".pnm": "PPM"}[suffix]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.new("RGB", (8, 8), (i * 90, 9, 9)).save(tmp_path / name / f"{i}{suffix}", kind)
    assert len(select(str(tmp_path), Learning()).splits["train"]) == 2
