"""The one place that opens an encoded image: only formats that are meant, within bounded memory and time.

Pillow goes by content, not by name: without a list of formats an EPS called ``.png`` would start Ghostscript.
"""

import functools
import importlib
import io
import os
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from convit.errors import InputError, counted, one_line
from convit.files import NoRegularFileError
from convit.preprocess import is_deep, strips

MOST_PIXELS = 100_000_000
"""A picture of more pixels is refused, or, a JPEG, decoded at a half, a quarter or an eighth of its size."""
MOST_COEFFICIENTS = 3 * 200_000_000
"""A JPEG of several scans keeps all its coefficients in memory, two bytes each."""
MOST_SCANS = 500
"""Of a progressive JPEG; encoders write about ten, and thousands over a large picture take minutes."""
MOST_SCANNED = 2_000_000_000
"""Pixels in all scans of a JPEG together: ten scans of the largest, 160 of a photo of 12 million pixels."""

_MODULES = ("Bmp", "Gif", "Jpeg", "Jpeg2K", "Png", "Ppm", "Tiff", "WebP", "Avif")
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM", "JPEG2000", "AVIF", "HEIF")
_READERS = {
    ".heic": ("HEIF", "HEIC", "pip install 'convit[heic]'"),
    ".heif": ("HEIF", "HEIC", "pip install 'convit[heic]'"),
    ".hif": ("HEIF", "HEIC", "pip install 'convit[heic]'"),
    ".avif": ("AVIF", "AVIF", "pip install 'Pillow>=11.3'"),
}
_BRANDS = {b"avif": ".avif", b"avis": ".avif"} | dict.fromkeys((b"heic", b"heix", b"hevc", b"mif1", b"msf1"), ".heic")
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0  # tags of TIFF
_SAMPLE_FORMAT, _SIGNED = 339, 2
_GREY_BITS = re.compile(r"'(?:L|I);(\d+)[a-zA-Z]*'")  # of a tile: the bits of a grey value in the file
_LEAST_OF_WIDE = 16
"""Pillow keeps the upper byte of a 16-bit colour. If none reaches this, the file uses 12 bits at most (or is black): it
would be shown as black."""
_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
_MOST_TEXT, _MOST_TEXTS = 2**20, 2**25  # Pillow refuses a PNG with longer ones; here the text is left out
_JPEG = b"\xff\xd8\xff"
_MARKER = re.compile(rb"\xff+([\x02-\xcf\xd9-\xfe])")  # of a JPEG; in coded data FF is followed by 00 or a restart

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
    AssertionError,
    RuntimeError,  # of libavif
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

# catch_warnings changes global state, and a scan opens files from several threads.
_WARNINGS = threading.Lock()


class UnreadableImageError(InputError):
    """A file that cannot be decoded as an image; the message is one line that begins with its path."""

    def __init__(self, message: str) -> None:
        # A DataLoader worker raises the error again with its whole traceback as the message: keep our line of it.
        line = message.rstrip().rpartition("\n")[2]
        super().__init__(line.removeprefix(f"{type(self).__module__}.{type(self).__qualname__}: "))


@functools.cache
def formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read here: those of :data:`_FORMATS` that are installed."""
    for name in _MODULES:
        with suppress(ImportError):  # an older Pillow without AVIF
            importlib.import_module(f"PIL.{name}ImagePlugin")
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    avif = getattr(importlib.import_module("PIL"), "AvifImagePlugin", None)
    lacking = () if avif is not None and avif.SUPPORTED else ("AVIF",)
    return tuple(name for name in _FORMATS if name in Image.OPEN and name not in lacking)


def lacks_reader(name: str) -> bool:
    """Whether a file name ends like an image of a format whose reader is not installed: HEIC as a rule."""
    reader = _READERS.get(os.path.splitext(name)[1].lower())
    return reader is not None and reader[0] not in formats()


def reader_notes(names: Iterable[str]) -> list[str]:
    """For each format whose reader is not installed a line: how many of the files have it, and what reads them."""
    lacking: dict[tuple[str, str], list[str]] = {}
    for name in names:
        if lacks_reader(name):
            lacking.setdefault(_READERS[os.path.splitext(name)[1].lower()][1:], []).append(name)
    return [
        f"{counted(len(found), f'{word} file')} left out, such as {found[0]}: {remedy}, or save them as JPEG"
        for (word, remedy), found in lacking.items()
    ]


@contextmanager
def opened(
    open_file: Callable[[], IO[bytes]], where: str, *, decode: bool, side: int | None = None
) -> Iterator[Image.Image]:
    """``Image.open`` whose failures, also those while the image is used, are one-line errors.

    Args:
        open_file: gives the encoded image as a file that can be read again from its start.
        where: what messages call it.
        decode: whether all of it is decoded, not only its header.
        side: pixels that no side may fall below where a JPEG is decoded at a half, a quarter or an eighth of its size,
            which takes a fraction of the time; None for the whole size.

    Raises:
        UnreadableImageError: it is empty, no image, damaged, or takes too much memory or time to decode.
    """
    # Given a path, Pillow maps a turned grey TIFF into memory with its sides swapped; given a file, it reads it.
    with readable(where) as found, open_file() as file:
        found.start = start = file.read(32)
        found.kind = "JPEG" if start[:3] == _JPEG else found.kind
        file.seek(0)
        with _WARNINGS, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a large photo is no news: only above the limit is it refused
            image = _open(file, start)
        found.kind = image.format or found.kind
        tiles = map(str, getattr(image, "tile", ()))
        wide = any(";16" in tile and "BGR;16" not in tile for tile in tiles)  # BGR;16 is 16 bits a pixel
        if decode and isinstance(image, JpegImagePlugin.JpegImageFile):
            _bound_scans(image, file)
        if side is not None and isinstance(image, JpegImagePlugin.JpegImageFile):
            image.draft(None, (side, side))
        _bound_pixels(image)
        if decode:
            decode_whole(image)
            _refuse_odd(image, wide=wide)
        yield image


def decode_whole(image: Image.Image) -> None:
    """Decodes an open image, once, to what its file means where Pillow gives other values.

    A grey PNG of 2 or 4 bits has the value that is transparent in its own bits, and Pillow has the pixels in 8. A grey
    TIFF of 12 bits says by that which value is white; it is widened to 16 bits, as Pillow does it with other formats.
    """
    found = _GREY_BITS.search(str(getattr(image, "tile", "")))
    image.load()
    bits, clear = int(found[1]) if found else 0, image.info.get("transparency")
    if bits in (2, 4) and image.mode == "L" and isinstance(clear, int):
        image.info["transparency"] = clear * 255 // (2**bits - 1)
    if bits == 12 and image.mode.startswith("I;16"):
        for box in strips(image.size):
            wide = np.asarray(image.crop(box), np.uint32) * 65535 // 4095
            image.paste(Image.fromarray(wide.astype(np.uint16)), box)


@dataclass
class _Found:
    """What is known of an encoded image before it is decoded."""

    kind: str
    start: bytes = b"?"


@contextmanager
def readable(where: str, kind: str = "image") -> Iterator[_Found]:
    """Makes one line of whatever Pillow raises while an image is opened, decoded or converted.

    Raises:
        UnreadableImageError: the line, which begins with ``where``.
    """
    found = _Found(kind)
    try:
        yield found
    except UnreadableImageError:
        raise
    except NoRegularFileError as error:  # it begins with the path
        raise UnreadableImageError(str(error)) from error
    except InputError as error:  # ours: what is wrong with it is said in it
        raise UnreadableImageError(f"{where}: {error}") from error
    except _DECODER_ERRORS as error:
        raise UnreadableImageError(f"{where}: {_reason(found.start, found.kind, error)}") from error


def _refuse_odd(image: Image.Image, *, wide: bool) -> None:
    """Raises :class:`InputError` for a decoded image whose pixels Pillow does not give as they are meant.

    wide: whether its file has 16 bits a colour, of which Pillow gives the upper 8.
    """
    tags: Any = getattr(image, "tag_v2", {})
    if is_deep(image) and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        raise InputError("a TIFF of more than 8 bits in which 0 is white; expected one in which 0 is black")
    if image.mode == "L" and tags.get(_SAMPLE_FORMAT) in (_SIGNED, (_SIGNED,)):
        raise InputError("a TIFF of signed numbers of 8 bits; expected numbers from 0 on")
    levels: Any = image.getextrema() if wide and image.mode in ("RGB", "RGBA") else ()
    if levels and max(high for _, high in levels[:3]) < _LEAST_OF_WIDE:
        raise InputError(
            "a colour image of 16 bits whose values take the lower 12 of them at most, of which nothing would be seen; "
            "expected values up to 65535, or an image of 8 bits"
        )


def _open(file: IO[bytes], start: bytes) -> Image.Image:
    if start[:3] == _JPEG:  # not Image.open, which limits the pixels: a JPEG can be decoded reduced
        return JpegImagePlugin.jpeg_factory(file, "")
    if start[:4] == b"\x89PNG" and _has_texts(file):
        file = io.BytesIO(_without_long_texts(file.read()))
    return Image.open(file, formats=formats())


def _bound_scans(image: Image.Image, file: IO[bytes]) -> None:
    """Raises :class:`InputError` for a JPEG whose scans take too much memory or time."""
    width, height = image.size
    if (scans := _scans(file)) < 2:
        return
    if scans > MOST_SCANS or scans * width * height > MOST_SCANNED:
        raise InputError(
            f"a JPEG of {scans} scans of {width} x {height} pixels; expected at most {MOST_SCANS}, and "
            f"{MOST_SCANNED} pixels in all of them: save it anew"
        )
    if width * height * len(image.getbands()) > MOST_COEFFICIENTS:
        raise InputError(
            f"a progressive JPEG of {width} x {height} pixels; expected at most {MOST_COEFFICIENTS // 3} of them, or a "
            "baseline JPEG"
        )


def _most_pixels() -> int:
    """Ours, or Pillow's where that is lower."""
    return min(MOST_PIXELS, 2 * (Image.MAX_IMAGE_PIXELS or MOST_PIXELS))


def _bound_pixels(image: Image.Image) -> None:
    """Sets a huge JPEG to be decoded reduced. Raises :class:`InputError` for another image of too many pixels."""
    width, height = image.size
    most = _most_pixels()
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        parts = (part for part in (1, 2, 4, 8) if -(-width // part) * -(-height // part) <= most)
        if (part := next(parts, 8)) > 1:
            image.draft(image.mode, (max(1, width // part), max(1, height // part)))
    if image.width * image.height > most:
        raise InputError(
            f"an image of {width} x {height} pixels, or a decompression bomb; expected at most {most} pixels, or a "
            "JPEG, which is decoded reduced"
        )


def _scans(file: IO[bytes]) -> int:
    """How many scans a JPEG has: the markers SOS before its end. Leaves the file where it was."""
    at = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(at)
    if content.count(b"\xff\xda") < 2:  # the rule: a baseline photo, without a thumbnail
        return 1
    place, scans = 2, 0
    while found := _MARKER.search(content, place):
        if found[1] == b"\xd9":
            break
        scans += found[1] == b"\xda"
        place = found.end() + int.from_bytes(content[found.end() : found.end() + 2], "big")
    return scans


def _has_texts(file: IO[bytes]) -> bool:
    """Whether a PNG has texts or a colour profile, by the heads of its chunks. Leaves the file at its start."""
    at, head = 8, b""
    while head[4:] not in _TEXTS:
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            break
        at += 12 + int.from_bytes(head[:4], "big")
    file.seek(0)
    return head[4:] in _TEXTS


def _without_long_texts(content: bytes) -> bytes:
    """A PNG without the texts and the colour profile that Pillow refuses to read; its other chunks as they are."""
    kept, at, total = [content[:8]], 8, 0
    while at + 8 <= len(content):
        (length,), kind = struct.unpack(">I", content[at : at + 4]), content[at + 4 : at + 8]
        end = at + 12 + length
        taken = _text_length(kind, content[at + 8 : end - 4]) if kind in _TEXTS else 0
        if taken < _MOST_TEXT and total + taken < _MOST_TEXTS:
            kept.append(content[at:end])
            total += taken
        at = end
    return b"".join(kept)


def _text_length(kind: bytes, chunk: bytes) -> int:
    """How many bytes the text of a chunk takes once it is unpacked; above the limit it is not unpacked further."""
    packed = chunk.partition(b"\0")[2]
    if kind == b"iTXt":
        packed = b"\0" + packed[2:].split(b"\0", 2)[-1] if packed[:1] == b"\1" else b""
    if kind == b"tEXt" or not packed:
        return len(chunk)
    with suppress(zlib.error):
        return len(zlib.decompressobj().decompress(packed[1:], _MOST_TEXT + 1))
    return len(chunk)


def _reason(start: bytes, kind: str, error: BaseException) -> str:
    detail = one_line(error)
    if isinstance(error, Image.DecompressionBombError):
        return f"a decompression bomb ({detail}); expected at most {_most_pixels()} pixels"
    if isinstance(error, UnidentifiedImageError):
        return _unknown(start)
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read ({error.strerror}); expected an image file"
    state = "truncated" if "truncated" in detail else "damaged"
    return f"{state} {kind} ({detail}); expected an image that decodes fully"


def _unknown(start: bytes) -> str:
    """What is wrong with a file of no format that is read."""
    if not start:
        return "an empty file (0 bytes); expected an image"
    suffix = _BRANDS.get(start[8:12]) if start[4:8] == b"ftyp" else None
    if suffix and _READERS[suffix][0] not in formats():
        _, word, remedy = _READERS[suffix]
        return f"{word}, whose reader is not installed; expected it ({remedy}), or an image in another format"
    kinds = ", ".join(name for name in formats() if name != "DIB")
    return f"not an image (no format that is read here); expected an image that decodes fully: {kinds}"
