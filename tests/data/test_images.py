"""Golden pixels for every mode and orientation, and one line for every kind of bad file."""

import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin, WebPImagePlugin

from convit.data.decoding import UnreadableImageError
from convit.data.images import image_size, is_image_name, read_image, to_rgb
from tests.helpers import noise

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def pixels(image: Image.Image) -> list[tuple[int, ...]]:
    return [tuple(pixel) for row in np.asarray(image).tolist() for pixel in row]


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("RGB", (1, 2, 3), (1, 2, 3)),
        ("L", 77, (77, 77, 77)),
        ("1", 1, WHITE),
        ("LA", (100, 255), (100, 100, 100)),
        ("LA", (100, 0), WHITE),
        ("RGBA", (255, 0, 0, 255), RED),
        ("RGBA", (255, 0, 0, 0), WHITE),
        ("RGBA", (255, 0, 0, 51), (255, 204, 204)),  # a fifth of red, four fifths of white
        ("CMYK", (0, 255, 255, 0), RED),
        ("I", 65535, WHITE),
        ("I", 257, (1, 1, 1)),
        ("F", 1.0, WHITE),
        ("F", 0.2, (51, 51, 51)),
    ],
)
def test_colour_of_each_mode(mode: str, colour: object, expected: tuple[int, ...]) -> None:
    image = to_rgb(Image.new(mode, (2, 1), colour))
    assert image.mode == "RGB"
    assert pixels(image) == [expected] * 2


@pytest.mark.parametrize(("dtype", "name"), [("<u2", "grey.tif"), (">u2", "grey.tif"), ("<u2", "grey.png")])
def test_16_bit_grey_is_scaled_not_clipped(dtype: str, name: str, tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 257, 32768, 65535]], dtype=dtype))
    assert image.mode in ("I;16", "I;16B")
    image.save(tmp_path / name)
    assert [pixel[0] for pixel in pixels(read_image(tmp_path / name))] == [0, 1, 128, 255]


def test_transparent_palette_entry_becomes_white(tmp_path: Path) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putdata([0, 1, 2])
    image.save(tmp_path / "palette.png", transparency=1)
    assert pixels(read_image(tmp_path / "palette.png")) == [RED, WHITE, BLUE]


def test_transparent_colour_of_an_rgb_png_becomes_white(tmp_path: Path) -> None:
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), GREEN)
    image.save(tmp_path / "keyed.png", transparency=GREEN)
    assert pixels(read_image(tmp_path / "keyed.png")) == [RED, WHITE]


# Where the pixels A B C / D E F of an upright image lie in a file of that orientation (the EXIF standard's table).
STORED = {
    1: ["ABC", "DEF"],
    2: ["CBA", "FED"],
    3: ["FED", "CBA"],
    4: ["DEF", "ABC"],
    5: ["AD", "BE", "CF"],
    6: ["CF", "BE", "AD"],
    7: ["FC", "EB", "DA"],
    8: ["DA", "EB", "FC"],
}


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation(orientation: int, suffix: str, tmp_path: Path) -> None:
    grey = {letter: 40 * i for i, letter in enumerate("ABCDEF")}
    stored = np.array([[grey[letter] for letter in row] for row in STORED[orientation]], dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / f"turned.{suffix}", exif=exif)
    upright = read_image(tmp_path / f"turned.{suffix}")
    assert np.asarray(upright)[:, :, 0].tolist() == [[0, 40, 80], [120, 160, 200]]
    assert upright.size == (3, 2)
    assert set(image_size(tmp_path / f"turned.{suffix}")) == {2, 3}


def test_damaged_exif_does_not_lose_the_photo(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), RED).save(tmp_path / "x.png", exif=b"Exif\0\0rubbish that is no TIFF")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about the metadata
        assert read_image(tmp_path / "x.png").size == (4, 4)


def noisy(path: Path, size: int = 64) -> Path:
    noise(size, size).save(path)
    return path


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tif", "webp"])
def test_truncated_file(suffix: str, tmp_path: Path) -> None:
    path = noisy(tmp_path / f"cut.{suffix}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UnreadableImageError) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "expected an image that decodes fully" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "gif", "tif", "webp", "ppm"])
def test_a_size_is_read_without_decoding(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = noisy(tmp_path / f"a.{suffix}")

    def decode(image: Image.Image) -> None:
        raise AssertionError(f"{image.format} decoded")

    for kind in (Image.Image, ImageFile.ImageFile, PngImagePlugin.PngImageFile, WebPImagePlugin.WebPImageFile):
        monkeypatch.setattr(kind, "load", decode)
    assert image_size(path) == (64, 64)


def test_truncated_jpeg_is_called_so(tmp_path: Path) -> None:
    path = noisy(tmp_path / "cut.jpg")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UnreadableImageError, match=r"cut\.jpg: truncated JPEG \(.+\); expected an image that decodes"):
        read_image(path)
    assert image_size(path) == (64, 64)  # its header is sound


def test_empty_text_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "zero.jpg").touch()
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "folder.jpg").mkdir()
    found = {
        "zero": r"an empty file \(0 bytes\)",
        "text": "not an image",
        "gone": "No such file",
        "folder": "directory",
    }
    for name, reason in found.items():
        for read in (read_image, image_size):
            with pytest.raises(UnreadableImageError, match=rf"{name}\.jpg: .*{reason}.*; expected an image"):
                read(tmp_path / f"{name}.jpg")


def test_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = noisy(tmp_path / "big.png", size=20)  # 400 pixels
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 250)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(path).size == (20, 20)  # between the limit and twice the limit: fine, and silent
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 199)
    with pytest.raises(UnreadableImageError, match=r"big\.png: a decompression bomb .*; expected at most 398 pixels"):
        read_image(path)


def test_error_keeps_its_line_through_pickle_and_a_worker_traceback() -> None:
    error = UnreadableImageError("a b/c.jpg: broken; expected better")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    wrapped = f"Caught it.\nOriginal Traceback:\n  File x\nconvit.data.decoding.UnreadableImageError: {error}\n"
    assert str(UnreadableImageError(wrapped)) == str(error)


def test_image_names() -> None:
    assert all(map(is_image_name, ["a.jpg", "A.JPEG", "é ü.PnG", "x.y.webp"]))
    assert not any(map(is_image_name, ["a.txt", "jpg", ".jpg", "._a.jpg", "Thumbs.db", "a.jpg.part"]))
