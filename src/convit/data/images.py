"""Image files: which files are images, and reading one as an upright RGB image, or raising a one-line error."""

import io
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from convit.errors import InputError, one_line
from convit.files import kind_of, opened

IMAGE_SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".jfif",
    ".png",
    ".bmp",
    ".gif",
    ".webp",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
    ".pbm",
    ".avif",
)
_SYSTEM_FILES = {"thumbs.db", "desktop.ini", "__macosx"}

# What Pillow's decoders raise for damaged content; most of it is not an OSError.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

# catch_warnings changes global state, and a scan opens files from several threads.
_WARNINGS = threading.Lock()

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImageError(InputError):
    """A file that cannot be decoded as an image; the message is one line that begins with its path."""

    def __init__(self, message: str) -> None:
        # A DataLoader worker raises the error again with its whole traceback as the message: keep our line of it.
        line = message.rstrip().rpartition("\n")[2]
        super().__init__(line.removeprefix(f"{type(self).__module__}.{type(self).__qualname__}: "))


def is_hidden(name: str) -> bool:
    """Whether a file or folder name is one that systems leave behind: a leading dot, Thumbs.db, __MACOSX.

    >>> is_hidden(".DS_Store"), is_hidden("Thumbs.db"), is_hidden("cat.jpg")
    (True, True, False)
    """
    return name.startswith(".") or name.lower() in _SYSTEM_FILES


def is_image_name(name: str) -> bool:
    """Whether a file name ends like an image, in upper or lower case, and is not hidden.

    >>> is_image_name("IMG_1.JPG"), is_image_name("notes.txt"), is_image_name("._IMG_1.JPG")
    (True, False, False)
    """
    return not is_hidden(name) and Path(name).suffix.lower() in IMAGE_SUFFIXES


def visible_files(folder: Path, above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Every visible file below ``folder``, sorted; links to folders are followed, but never back to a folder above.

    A dangling link counts as a file, so that reading it says what is wrong.
    """
    here = os.path.realpath(folder)
    if here in above:
        return
    for path in sorted(folder.iterdir()):
        if is_hidden(path.name):
            continue
        if path.is_dir():
            yield from visible_files(path, above | {here})
        elif path.is_file() or path.is_symlink():
            yield path


def pictures(paths: Sequence[Path]) -> Iterator[Path]:
    """The files, and the pictures in the folders, at any depth, by name.

    Raises:
        InputError: no such file or folder, or no picture in one.
    """
    for path in paths:
        if path.is_dir():
            found = [file for file in visible_files(path) if is_image_name(file.name)]
            if not found:
                raise InputError(f"{path}: no picture in it; expected files that end like .jpg or .png")
            yield from found
        elif path.is_file():
            yield path
        else:
            raise InputError(f"{path}: {kind_of(path)}; expected a picture or a folder of pictures")


def read_image(path: Path) -> Image.Image:
    """Decode a whole image file, turn it upright by its EXIF orientation, and return it as RGB.

    Of an animation, the first frame. Raises :class:`UnreadableImageError` for a file that is missing, empty, truncated,
    damaged, no image, or a decompression bomb (more than twice ``PIL.Image.MAX_IMAGE_PIXELS``).
    """
    return _decoded(lambda: opened(path), str(path))


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) of an image file once upright, from its header alone. Raises like :func:`read_image`."""
    return _size(lambda: opened(path), str(path))


def decode_image(encoded: bytes, where: str) -> Image.Image:
    """What :func:`read_image` makes of a file with these bytes; messages call it ``where``."""
    return _decoded(lambda: io.BytesIO(encoded), where)


def encoded_size(encoded: bytes, where: str) -> tuple[int, int]:
    """What :func:`image_size` makes of a file with these bytes; messages call it ``where``."""
    return _size(lambda: io.BytesIO(encoded), where)


def to_rgb(image: Image.Image) -> Image.Image:
    """An 8-bit RGB image of the same size, from an image of any Pillow mode.

    Transparent pixels are composited on white. 16-bit grey (``I``, ``I;16``, ``I;16B``) is scaled so that 65535
    becomes 255. Float grey (``F``) is scaled from the smallest of 1, 255 and 65535 that its largest value fits.

    >>> to_rgb(Image.new("LA", (1, 1), (0, 0))).getpixel((0, 0))
    (255, 255, 255)
    """
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0, neginf=0)
        top = next((top for top in (1, 255) if values.max() <= top), 65535)
        return Image.fromarray((values / top * 255).round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB") if image.mode != "RGB" else image


Picture = Image.Image | str | Path | NDArray[np.uint8]
"""A picture, its path, or its pixels as uint8: ``(H, W)`` grey, ``(H, W, 3)`` RGB, ``(H, W, 4)`` RGBA."""


def as_rgb(picture: Picture) -> Image.Image:
    """An upright 8-bit RGB image of whatever a picture is given as.

    Raises:
        InputError: a file that is no image, an array of another type or shape, or something else.
    """
    if isinstance(picture, Image.Image):
        return to_rgb(upright(picture))
    if isinstance(picture, str | Path):
        return read_image(Path(picture))
    got = f"a {type(picture).__name__}"
    if isinstance(picture, np.ndarray):
        shaped = picture.ndim in (2, 3) and picture.shape[2:] in ((), (3,), (4,)) and picture.size > 0
        if picture.dtype == np.uint8 and shaped:
            return to_rgb(Image.fromarray(picture))
        got = f"an array of {picture.dtype} and shape {picture.shape}"
    raise InputError(
        f"images: got {got}, expected a PIL image, a path, or an array: uint8 of (height, width), with 3 or 4 channels "
        "behind or none"
    )


def upright(image: Image.Image) -> Image.Image:
    """The picture turned as its EXIF orientation says, and without it: turned once, it is not turned again."""
    turn = _UPRIGHT.get(_orientation(image))
    if turn is None:
        return image
    turned = image.transpose(turn)
    for key in ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"):  # where Pillow looks for it
        turned.info.pop(key, None)
    return turned


def _decoded(open_file: Callable[[], IO[bytes]], where: str) -> Image.Image:
    with _opened(open_file, where) as image:
        image.load()
        return to_rgb(upright(image))


def _size(open_file: Callable[[], IO[bytes]], where: str) -> tuple[int, int]:
    with _opened(open_file, where) as image:
        width, height = image.size
        # Pillow's TIFF reader swaps the sides itself.
        swapped = image.format != "TIFF" and _orientation(image) >= 5
        return (height, width) if swapped else (width, height)


@contextmanager
def _opened(open_file: Callable[[], IO[bytes]], where: str) -> Iterator[Image.Image]:
    """``Image.open`` whose failures, also those while the image is used, are one-line errors."""
    kind, empty = "image", False
    try:
        # Given a path, Pillow maps a turned grey TIFF into memory with its sides swapped; given a file, it reads it.
        with open_file() as file:
            empty = not file.read(1)
            file.seek(0)
            with _WARNINGS, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a large photo is no news: only above twice the limit is it refused
                image = Image.open(file)
            kind = image.format or kind
            yield image
    except _DECODER_ERRORS as error:
        raise UnreadableImageError(f"{where}: {_reason(empty, kind, error)}") from error


def _reason(empty: bool, kind: str, error: BaseException) -> str:
    detail = one_line(error)
    if isinstance(error, Image.DecompressionBombError):
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        return f"a decompression bomb ({detail}); expected at most {limit} pixels"
    if isinstance(error, UnidentifiedImageError):
        if empty:
            return "an empty file (0 bytes); expected an image"
        return "not an image (no format that Pillow knows); expected an image that decodes fully"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read ({error.strerror}); expected an image file"
    state = "truncated" if "truncated" in detail else "damaged"
    return f"{state} {kind} ({detail}); expected an image that decodes fully"


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error):
        return 1  # damaged metadata around sound pixels is no reason to refuse a photo
    return orientation if orientation in _UPRIGHT else 1
