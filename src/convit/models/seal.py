"""A checksum inside a .safetensors file, to detect changed bits: otherwise wrong weights would be loaded unnoticed.

It is in the file's metadata, after ``format``, which other libraries' loaders need. It is computed over the whole file,
with zeros in place of the checksum. So it moves with the file, and files of other programs have none. Behind it may
stand the fingerprint of the ``config.json`` that the weights were written with: beside another one, with other class
names or another preprocessing, every answer would be wrong unnoticed.
"""

import errno
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from torch import Tensor

from convit import files
from convit.errors import InputError, one_line

BLANK = "0" * 64
_SEAL = re.compile(
    rb'^.{8}\{"__metadata__":\{"format":"pt","sha256":"([0-9a-f]{64})"(?:,"config":"([0-9a-f]{16})")?\}', re.DOTALL
)

MOST_HEADER = 100_000_000
"""Of the library."""
_BEGINNING = 256
"""Bytes that have all of it."""


def sealed(tensors: Mapping[str, Tensor], config: str = "") -> bytes:
    """The content of a .safetensors file with its checksum in it; the same bytes for the same tensors.

    Args:
        tensors: by name.
        config: the fingerprint of what is written beside it.
    """
    content = safetensors.torch.save(dict(tensors))
    end = 8 + int.from_bytes(content[:8], "little")
    # Not by the library: it writes several entries in an order that changes from run to run.
    metadata = {"format": "pt", "sha256": BLANK} | ({"config": config} if config else {})
    header = {"__metadata__": metadata, **json.loads(content[8:end])}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at multiples of 8 bytes
    content = b"".join((len(text).to_bytes(8, "little"), text, memoryview(content)[end:]))
    place = _SEAL.match(content)
    assert place is not None
    view = memoryview(content)
    return b"".join((view[: place.start(1)], _checksum(content, place).encode(), view[place.end(1) :]))


def is_whole(content: bytes) -> bool:
    """Whether a .safetensors file is as :func:`sealed` made it; True where it has no checksum.

    >>> import torch
    >>> content = sealed({"a": torch.ones(2)})
    >>> is_whole(content), is_whole(content[:-1] + bytes([content[-1] ^ 1]))
    (True, False)
    >>> is_whole(safetensors.torch.save({"a": torch.ones(2)}))
    True
    """
    place = _SEAL.match(content)
    return place is None or place[1].decode() == _checksum(content, place)


def read_sealed(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, on the CPU.

    Raises:
        InputError: it is no such file, cannot be read, or has the checksum of another content.
    """
    try:
        content = files.read(path, _length(path))
        tensors = safetensors.torch.load(content)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise InputError(f"{path}: not a whole .safetensors file ({error.strerror}); expected one") from error
        raise InputError(f"{path}: cannot be read ({error.strerror or one_line(error)})") from error
    except Exception as error:  # SafetensorError; and of other kinds, for types of numbers that PyTorch has not
        raise InputError(f"{path}: not a whole .safetensors file ({one_line(error)}); expected one") from error
    if not is_whole(content):
        raise InputError(f"{path}: damaged, it is not what was written (checksum); expected a whole copy of it")
    return tensors


def _length(path: Path) -> int:
    """The bytes that a .safetensors file has by its header. What is no header is left to the library.

    So a file that somebody lengthened by gigabytes is not read.
    """
    with files.opened(path) as stream:
        header = int.from_bytes(stream.read(8), "little")
        if header > MOST_HEADER:
            return MOST_HEADER
        try:
            entries = json.loads(stream.read(header))
            ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
            return 8 + header + int(max(ends, default=0))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
            return MOST_HEADER


def checksum_in(content: bytes) -> str:
    """The checksum in the content of a .safetensors file, which differs for other tensors; empty if it has none."""
    place = _SEAL.match(content)
    return "" if place is None else place[1].decode()


def config_of(path: Path) -> str:
    """The fingerprint of the ``config.json`` that the weights were written with; empty if the file does not say."""
    with files.opened(path) as stream:
        place = _SEAL.match(stream.read(_BEGINNING))
    return "" if place is None or place[2] is None else place[2].decode()


def checksum_of(path: Path) -> str:
    """:func:`checksum_in` a file."""
    with files.opened(path) as stream:
        return checksum_in(stream.read(_BEGINNING))


def _checksum(content: bytes, place: re.Match[bytes]) -> str:
    view = memoryview(content)  # without a copy of the weights
    digest = hashlib.sha256(view[: place.start(1)])
    digest.update(BLANK.encode())
    digest.update(view[place.end(1) :])
    return digest.hexdigest()
