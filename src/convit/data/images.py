"""Image files: which files are images, and reading one as an upright RGB image, or raising a one-line error."""

import io
import os
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convit import files
from convit.choices import IMAGE_SUFFIXES
from convit.data.decoding import decode_whole, lacks_reader, opened, readable, reader_notes
from convit.errors import InputError, counted, one_line
from convit.files import kind_of, printable
from convit.preprocess import to_rgb

_SYSTEM_NAMES = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "system volume information", "$recycle.bin", "recycler"),
    *("__macosx", "lost+found", "thumbnails"),
    *("@eadir", "@recycle", "@recently-snapshot", "@sharebin", "@tmp", "@__thumb", "#recycle", "#snapshot"),  # of a NAS
}

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


def is_hidden(name: str) -> bool:
    """Whether a file or folder name is one that systems leave behind: a leading dot, Thumbs.db, __MACOSX, @eaDir.

    >>> is_hidden(".DS_Store"), is_hidden("@eaDir"), is_hidden("cat.jpg")
    (True, True, False)
    """
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def is_image_name(name: str) -> bool:
    """Whether a file name ends like an image that can be read here, in upper or lower case, and is not hidden.

    >>> is_image_name("IMG_1.JPG"), is_image_name("notes.txt"), is_image_name("._IMG_1.JPG")
    (True, False, False)
    """
    known = os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
    return known and not is_hidden(name) and not lacks_reader(name)


def visible_files(folder: Path) -> Iterator[Path]:
    """Every visible file below ``folder``, sorted; links to folders are followed, but never back to a folder above.

    A dangling link, a pipe or a socket counts as a file, so that reading it says what is wrong.
    """
    return (path for name in names_below(folder) if not is_hidden((path := folder / name).name))


def names_below(folder: Path, above: frozenset[str] = frozenset()) -> Iterator[str]:
    """The paths of :func:`visible_files`, and of hidden files and folders besides, which are not looked into.

    They are relative to ``folder``, with forward slashes: as texts, which take a tenth of the time, as a data set has
    ten thousands.
    """
    here = os.path.realpath(folder)
    if here in above:
        return
    with os.scandir(folder) as entries:
        listed = sorted(entries, key=lambda entry: entry.name)
    for entry in listed:
        if is_folder(entry) and not is_hidden(entry.name):
            yield from (f"{entry.name}/{name}" for name in names_below(Path(entry.path), above | {here}))
        else:
            yield entry.name


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures to look at."""

    paths: tuple[Path, ...]
    notes: tuple[str, ...] = ()
    """What was left out, each in one line."""


def pictures(paths: Sequence[Path]) -> Pictures:
    """The files, and the pictures in the folders, at any depth, by name.

    Raises:
        InputError: no such file or folder, or no picture in one.
    """
    taken: list[Path] = []
    in_folders: list[Path] = []
    lacking: list[str] = []
    ignored: list[str] = []
    for path in paths:
        if path.is_dir():
            inside = list(visible_files(path))
            found = [file for file in inside if is_image_name(file.name)]
            left = [file.name for file in inside if lacks_reader(file.name)]
            if not found:
                why = "".join(f"; {note}" for note in reader_notes(left))
                some = f" (but files such as {inside[0]})" if inside else ""
                raise InputError(f"{path}: no picture in it{some}; expected files that end like .jpg or .png{why}")
            taken += found
            in_folders += found
            lacking += left
            ignored += [str(file) for file in inside if not is_image_name(file.name) and not lacks_reader(file.name)]
        elif path.is_file():
            taken.append(path)
        else:
            raise InputError(f"{path}: {kind_of(path)}; expected a picture or a folder of pictures")
    return Pictures(
        tuple(taken), (*_said_of_repeats(taken, in_folders), *ignored_notes(ignored), *reader_notes(lacking))
    )


def _said_of_repeats(paths: Sequence[Path], in_folders: Sequence[Path]) -> list[str]:
    """A line if pictures of a folder are given once more, such as by ``photos photos/*``: each is answered as often.

    A file that is named twice is meant.
    """
    counts = Counter(map(os.path.abspath, paths))
    again = [path for path in dict.fromkeys(map(os.path.abspath, in_folders)) if counts[path] > 1]
    what = counted(len(again), "picture is", "pictures are")
    return [f"{what} given more than once, such as {printable(again[0])}"] if again else []


def ignored_notes(names: Sequence[str]) -> list[str]:
    """What is said of files that are no images by their names: one line, or none.

    >>> ignored_notes(["a/notes.txt", "a/1.jpg_large"])
    ['ignored 2 files that are no images by name, such as a/notes.txt']
    """
    count = counted(len(names), "file that is no image", "files that are no images")
    return [f"ignored {count} by name, such as {printable(names[0])[:300]}"] if names else []


def read_image(path: Path, full_scale: float | None = None) -> Image.Image:
    """Decode a whole image file, turn it upright by its EXIF orientation, and return it as RGB.

    Of an animation, the first frame. A JPEG of more than :data:`convit.data.decoding.MOST_PIXELS` is decoded at a half,
    a quarter or an eighth of its size.

    Args:
        path: the file.
        full_scale: the value that is white where grey values are floats or have more than 8 bits (:func:`to_rgb`).

    Raises:
        UnreadableImageError: a file that is missing, empty, truncated, damaged, no image, of another full scale, or
            that takes too much memory or time to decode.
    """
    return named_rgb(stored_image(path), full_scale, str(path))


def stored_image(path: Path, side: int | None = None) -> Image.Image:
    """As :func:`read_image`, but in the mode that the file has; a JPEG reduced as far as ``side`` allows
    (:func:`convit.data.decoding.opened`)."""
    with opened(lambda: files.opened(path), str(path), decode=True, side=side) as image:
        return upright(image)


def stored_in(encoded: bytes, where: str, side: int | None = None) -> Image.Image:
    """What :func:`stored_image` makes of a file with these bytes; messages call it ``where``."""
    with opened(lambda: io.BytesIO(encoded), where, decode=True, side=side) as image:
        return upright(image)


def named_rgb(image: Image.Image, full_scale: float | None, where: str) -> Image.Image:
    """:func:`to_rgb` of the upright image; an error is one line that says which image it is."""
    with readable(where, image.format or "image"):
        decode_whole(image)  # an open one may be damaged or closed
        return to_rgb(upright(image), full_scale)


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) of an image file, from its header alone, as it stands there: of a photo that its EXIF turns by a
    right angle, the sides are swapped. (Where a PNG tells its turn may be behind all of its pixels.) Raises like
    :func:`read_image`."""
    with opened(lambda: files.opened(path), str(path), decode=False) as image:
        return image.size


def encoded_size(encoded: bytes, where: str) -> tuple[int, int]:
    """What :func:`image_size` makes of a file with these bytes; messages call it ``where``."""
    with opened(lambda: io.BytesIO(encoded), where, decode=False) as image:
        return image.size


Encoded = bytes | bytearray | memoryview
Picture = Image.Image | str | os.PathLike[str] | Encoded | IO[bytes] | NDArray[np.uint8]
"""A picture, its path, its encoded bytes, a file of them that is open to read bytes, or its pixels as uint8:
``(H, W)`` or ``(H, W, 1)`` grey, ``(H, W, 3)`` RGB, ``(H, W, 4)`` RGBA."""


def is_file(picture: object) -> bool:
    """Whether it is an open file, or something like one: it can be read."""
    return callable(getattr(picture, "read", None))


def as_rgb(picture: Picture, full_scale: float | None = None) -> Image.Image:
    """An upright 8-bit RGB image of whatever a picture is given as.

    Args:
        picture: what it is.
        full_scale: as for :func:`read_image`.

    Raises:
        InputError: a file that is no image, an array of another type or shape, or something else.
    """
    if isinstance(picture, Image.Image):
        if 0 in picture.size:
            raise InputError(f"images: got a picture of {picture.width} x {picture.height} pixels, expected some")
        return named_rgb(picture, full_scale, "images")
    if isinstance(picture, str | os.PathLike):
        return read_image(Path(os.fsdecode(picture)), full_scale)
    if isinstance(picture, Encoded):
        return named_rgb(stored_in(bytes(picture), "images"), full_scale, "images")
    if is_file(picture):
        return _read_file(picture, full_scale)  # type: ignore[arg-type]
    got = f"a {type(picture).__name__}"
    if isinstance(picture, np.ndarray):
        shaped = picture.ndim in (2, 3) and picture.shape[2:] in ((), (1,), (3,), (4,)) and picture.size > 0
        if picture.dtype == np.uint8 and shaped:
            return to_rgb(Image.fromarray(picture[..., 0] if picture.shape[2:] == (1,) else picture))
        got = f"an array of {picture.dtype} and shape {picture.shape}"
    raise InputError(
        f"images: got {got}, expected a PIL image, a path, a file open to read bytes, or an array: uint8 of (height, "
        "width), with 1, 3 or 4 channels behind or none"
    )


def _read_file(file: IO[bytes], full_scale: float | None) -> Image.Image:
    """What is in an open file from where it stands, or, if it was read to its end, all of it; it is left open."""
    where = str(getattr(file, "name", None) or "images")
    try:
        content = file.read()
        if not content and file.seekable():
            file.seek(0)
            content = file.read()
    except (OSError, ValueError) as error:  # ValueError: closed, or opened as text
        raise InputError(f"{where}: cannot be read ({one_line(error)}); expected a file open to read bytes") from error
    if not isinstance(content, bytes):
        raise InputError(f"{where}: got a file open as text, expected one open to read bytes: open(path, 'rb')")
    return named_rgb(stored_in(content, where), full_scale, where)


def upright(image: Image.Image) -> Image.Image:
    """The picture turned as its EXIF orientation says, and without it: turned once, it is not turned again."""
    turn = _UPRIGHT.get(_orientation(image))
    if turn is None:
        return image
    turned = image.transpose(turn)
    for key in ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"):  # where Pillow looks for it
        turned.info.pop(key, None)
    return turned


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error):
        return 1  # damaged metadata around sound pixels is no reason to refuse a photo
    return orientation if orientation in _UPRIGHT else 1
