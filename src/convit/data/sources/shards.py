"""WebDataset shards, .tar files of images with their labels beside them, as an indexed set of images.

The headers of every shard are read once, on opening; an image is then read by its place in the file. So shards are
shuffled as fully as files are, whatever their order inside, and a run resumes exactly with any number of processes:
streaming through a buffer, which is what the ``webdataset`` library is for, has neither. (Its own indexed reader,
``wids``, is no longer part of ``webdataset`` 1.0.) The index is not kept: making it takes 24 microseconds of one core
a member, 2.4 s for 50,000 images with a label each; that every image is decoded before training takes longer.

Nothing is unpacked, and names inside a shard are never used as paths. Only regular members are read, and only images
and labels (.cls, .json, .txt) among them: pickles (.pyd, .pth, .pkl) are never looked at. A file is opened for each
read, 10 microseconds in all, so that processes and threads share no position in it.
"""

import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from convit.data.decoding import UnreadableImageError
from convit.data.image_sets import NO_STAMP, EncodedImages, Stamp, stamp_of
from convit.data.images import IMAGE_SUFFIXES, is_hidden
from convit.data.sources.interface import Opening, Source, SourceKind, class_order, is_one_line, matched, path_of
from convit.data.sources.shard_files import (
    CLASS_FILES,
    LAYOUT,
    find_shards,
    holds_shards,
    is_shard,
    is_shard_pattern,
    splits_of,
)
from convit.errors import InputError, listing, one_line
from convit.files import absolute, composed, opened, read

_IMAGES = tuple(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES)
_LABELS = ("cls", "json", "txt")
_MOST_LABEL_BYTES = 2**20
_MOST_IMAGE_BYTES = 2**30  # more pixels than Pillow decodes
_MOST_PADDING = 2**20  # what writers put after the end is 10 kB as a rule

# What Python's tarfile raises for damaged headers; not all of it is a TarError.
_TAR_ERRORS = (tarfile.TarError, OSError, ValueError, EOFError, OverflowError, MemoryError, RecursionError)


class _Place(NamedTuple):
    """Where a member's content lies in its shard, in bytes."""

    name: str
    offset: int
    size: int


class ShardImages(EncodedImages):
    """Images in .tar files. places: (N, 3) shard, first byte, number of bytes; names: ``SHARD/MEMBER``."""

    of_each = ("places",)

    def __init__(
        self,
        root: Path,
        shards: Sequence[str],
        places: NDArray[np.int64],
        names: Sequence[str],
        targets: ArrayLike,
        class_names: Sequence[str],
    ) -> None:
        super().__init__(names, targets, class_names)
        assert places.shape == (len(self), 3)
        self.root = root
        self.shards = tuple(shards)
        self.places = places

    def encoded(self, index: int) -> bytes:
        shard, offset, size = self.places[index].tolist()
        if size > _MOST_IMAGE_BYTES:
            raise UnreadableImageError(f"{self.where(index)}: {size} bytes; expected at most {_MOST_IMAGE_BYTES}")
        try:
            with opened(self.root / self.shards[shard]) as file:
                file.seek(offset)
                content = file.read(size)
        except OSError as error:
            raise UnreadableImageError(f"{self.where(index)}: cannot be read ({error.strerror})") from error
        if len(content) < size:
            raise UnreadableImageError(f"{self.where(index)}: the shard is shorter than when it was opened")
        return content

    def where(self, index: int) -> str:
        shard = self.shards[self.places[index, 0]]
        return f"{self.root / shard}:{self.names[index].removeprefix(f'{shard}/')}"

    def content(self, index: int) -> int:
        return int(self.places[index, 2])

    def stamps(self) -> list[Stamp]:
        of_shards = [stamp_of(self.root / shard) for shard in self.shards]
        return [_stamp(of_shards[shard], offset, size) for shard, offset, size in self.places.tolist()]

    def stamp(self, index: int) -> Stamp:
        shard, offset, size = self.places[index].tolist()
        return _stamp(stamp_of(self.root / self.shards[shard]), offset, size)


def _stamp(shard: Stamp, offset: int, size: int) -> Stamp:
    """The stamp of an image at a place in a shard: its size, and of its shard when it was changed last."""
    return NO_STAMP if shard == NO_STAMP else (size, *shard[1:3], offset)


def open_shards(data: str, opening: Opening) -> Source:
    """The images of one .tar file, of a folder of them, or of a pattern such as ``photos/train-{000..003}.tar``.

    A member ``KEY.jpg`` (or another image suffix) is an image; its label is in ``KEY.cls`` (a whole number), or else
    under ``label`` in ``KEY.json``, or else in ``KEY.txt`` (the class's name). A key ends at the first dot of the
    name's last part. Other members are ignored, and so are names starting with a dot.

    Numbers are lines, from 0 on, of ``classes.txt`` or ``classnames.txt`` beside the shards; where there is none they
    are the class names themselves. A split is told by a word in the shard's name, or by its folder: ``train-0001.tar``,
    ``val/0001.tar``. Where no shard tells, all are one undivided set. Classes are those of the train split, in the
    order of the list, or sorted.

    Raises :class:`InputError` for a pattern that matches no file, a compressed or damaged shard, an image without a
    label or a label without an image, a link, sparse file or two members of one name, a label that is no class, a
    class of val or test that train lacks, or fewer classes than asked for.
    """
    root, shards = find_shards(data)
    listed = _class_list(root)
    sets, ignored = {}, []
    unended: list[str] = []
    for split, names in splits_of(shards).items():
        sets[split], others = _read_split(root, names, listed, unended)
        ignored += others
    class_names, matching = matched(sets, min_classes=opening.min_classes, where=data, expected="two labels")
    notes = []
    if unended:  # these stop where a member ends, as one does that was cut off just there
        what = f"{unended[0]} has" if len(unended) == 1 else f"{len(unended)} shards, such as {unended[0]}, have"
        notes.append(f"{what} no end mark of a .tar file: if it was cut off there, images are missing")
    path = path_of(data)
    return Source(
        name=path.stem if path.is_file() else absolute(root).name,
        root=str(absolute(path) if path.exists() else path.absolute()),
        class_names=class_names,
        splits=matching,
        ignored=tuple(ignored),
        notes=tuple(notes),
    )


def _read_split(
    root: Path, shards: Sequence[str], listed: tuple[str, ...], unended: list[str]
) -> tuple[ShardImages, list[str]]:
    """The images of some shards, with classes of their own, and the names of what is neither image nor label.

    Shards without an end mark are added to ``unended``.
    """
    names, places, labels = [], [], []
    ignored = []
    for number, shard in enumerate(shards):
        path = root / shard
        samples, others, ended = _index(path)
        unended += [] if ended else [shard]
        ignored += [f"{shard}/{name}" for name in others]
        with opened(path) as file:
            for members in samples.values():
                image = _image(path, members)
                labels.append(_label(file, path, image.name, members, listed))
                names.append(f"{shard}/{image.name}")
                places.append((number, image.offset, image.size))
    if not names:
        raise InputError(f"{root / shards[0]}: no image in {len(shards)} shards; expected {LAYOUT}")
    used = set(labels)
    # A label of text may be in no list; the list orders those that are.
    class_names = tuple(name for name in listed if name in used) if used <= set(listed) else class_order(used)
    position = {name: i for i, name in enumerate(class_names)}
    where = np.array(places, dtype=np.int64)
    return ShardImages(root, shards, where, names, [position[label] for label in labels], class_names), ignored


def _index(shard: Path) -> tuple[dict[str, dict[str, _Place]], list[str], bool]:
    """Key -> suffix -> place of a shard's images and labels, the members of keys that have neither, and whether the
    shard has an end mark."""
    samples: dict[str, dict[str, _Place]] = {}
    others: dict[str, str] = {}
    ended = True
    for member in _members(shard):
        if member is None:
            ended = False
            break
        name = member.name.removeprefix("./")
        if is_hidden(name.rpartition("/")[2]) or member.isdir():
            continue
        key, suffix = _key(name)
        if suffix not in _IMAGES and suffix not in _LABELS:
            others.setdefault(key, name)
            continue
        if not member.isreg() or member.issparse():
            kind = "a sparse file" if member.issparse() else "a link" if member.islnk() or member.issym() else "special"
            raise InputError(f"{shard}: member {name!r} is {kind}; expected regular files")
        if not is_one_line(name):
            raise InputError(f"{shard}: the member name {name!r} is no UTF-8 in one line; expected a name that is")
        members = samples.setdefault(key, {})
        if suffix in members:
            raise InputError(f"{shard}: two members {name!r}; expected different names")
        members[suffix] = _Place(name, member.offset_data, member.size)
    return samples, [name for key, name in others.items() if key not in samples], ended


def _members(shard: Path) -> Iterator[tarfile.TarInfo | None]:
    """Every member's header, to the very end of the shard: tarfile itself takes a damaged header for the end.

    None behind the last one where no block of zeros, the end mark, follows.
    """
    expected = "a whole .tar file that is not compressed"
    try:
        size = shard.stat().st_size
        with opened(shard) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # it would keep them all
                # Before it goes on: from a negative size it would go back, and never end.
                if member.isreg() and not 0 <= member.size <= size - member.offset_data:
                    raise InputError(
                        f"{shard}: {member.name!r} claims {member.size} bytes from {member.offset_data} on, and the "
                        f"shard has {size}; expected {expected}"
                    )
                yield member
            end = tar.offset
            file.seek(end)
            rest = file.read(_MOST_PADDING + 1)
    except InputError:
        raise
    except _TAR_ERRORS as error:
        raise InputError(f"{shard}: not readable as .tar ({one_line(error)}); expected {expected}") from error
    if len(rest) > _MOST_PADDING or rest.strip(b"\0"):
        raise InputError(f"{shard}: damaged at byte {end}, before its end; expected {expected}")
    if not rest:
        yield None


def _key(name: str) -> tuple[str, str]:
    """Key and suffix: the name is cut at the first dot of its last part.

    >>> _key("a.b/c.seg.PNG"), _key("readme")
    (('a.b/c', 'seg.png'), ('readme', ''))
    """
    folder, slash, last = name.rpartition("/")
    stem, _, suffix = last.partition(".")
    return folder + slash + stem, suffix.lower()


def _image(shard: Path, members: Mapping[str, _Place]) -> _Place:
    """The one image among the members of a key."""
    images = [place for suffix, place in members.items() if suffix in _IMAGES]
    if len(images) == 1:
        return images[0]
    found = listing(place.name for place in members.values())
    raise InputError(f"{shard}: {found} {'are two images' if images else 'without an image'}; expected one image a key")


def _label(file: BinaryIO, shard: Path, image: str, members: Mapping[str, _Place], listed: tuple[str, ...]) -> str:
    """The name of an image's class."""
    for suffix in _LABELS:
        if suffix not in members:
            continue
        place = members[suffix]
        where = f"{shard}:{place.name}"
        label = _parsed(_content(file, place, where), suffix, where)
        if label is None:
            continue
        if isinstance(label, int) and listed:
            if label >= len(listed):
                raise InputError(
                    f"{where}: class {label}; expected 0 to {len(listed) - 1}, the lines of the class list"
                )
            return listed[label]
        return str(label)
    raise InputError(f"{shard}:{image}: no label; expected {LAYOUT}")


def _content(file: BinaryIO, place: _Place, where: str) -> str:
    if place.size > _MOST_LABEL_BYTES:
        raise InputError(f"{where}: {place.size} bytes; expected a label")
    file.seek(place.offset)
    try:
        return file.read(place.size).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: no UTF-8; expected a label in UTF-8") from error


def _parsed(content: str, suffix: str, where: str) -> int | str | None:
    """A class's number or name; None for JSON without a label."""
    label: object = content.strip()
    if suffix == "json":
        try:
            document = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: not JSON; expected an object with a 'label'") from error
        label = document.get("label") if isinstance(document, dict) else None
        if label is None:
            return None
    elif suffix == "cls":
        label = int(content) if re.fullmatch(r"\s*[0-9]{1,9}\s*", content) else None
    if isinstance(label, int) and not isinstance(label, bool) and label >= 0:
        return label
    if isinstance(label, str) and label.strip() and is_one_line(label):
        return composed(label.strip())
    expected = "a whole number from 0 on" if suffix == "cls" else "the name of a class, in one line"
    raise InputError(f"{where}: the label is {content.strip()[:40]!r}; expected {expected}")


def _class_list(root: Path) -> tuple[str, ...]:
    """The lines of ``classes.txt`` or ``classnames.txt`` in the shards' folder; none where there is no such file."""
    files = [root / name for name in CLASS_FILES if (root / name).is_file()]
    if not files:
        return ()
    try:
        names = tuple(composed(line.strip()) for line in read(files[0]).decode("utf-8-sig").rstrip().splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{files[0]}: cannot be read ({error}); expected the name of a class in each line") from error
    seen: set[str] = set()
    for number, name in enumerate(names, start=1):
        if not name or not is_one_line(name) or name in seen:
            raise InputError(f"{files[0]}, line {number}: {name!r}; expected a new name in each line, without gaps")
        seen.add(name)
    return names


def _takes(data: str) -> bool:
    path = path_of(data)
    if path.is_dir():
        return holds_shards(path)
    return is_shard(path) if path.exists() else is_shard_pattern(data)


SHARDS = SourceKind(takes=_takes, open=open_shards, expected=".tar shards")
