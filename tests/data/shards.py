"""Shards for tests: .tar files from names and contents."""

import io
import tarfile
from pathlib import Path

from PIL import Image


def png(value: int, size: tuple[int, int] = (6, 4)) -> bytes:
    """A picture of one colour; its red tells which it is."""
    stream = io.BytesIO()
    Image.new("RGB", size, (value, 0, 0)).save(stream, "png")
    return stream.getvalue()


def shard(path: Path, members: dict[str, bytes | str], format: int = tarfile.PAX_FORMAT) -> Path:
    """A .tar file of these members, in this order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for name, content in members.items():
            data = content.encode() if isinstance(content, str) else content
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return path


def samples(first: int, count: int, classes: int = 2) -> dict[str, bytes | str]:
    """``count`` images with their class in ``.cls``, red from ``first`` on."""
    members: dict[str, bytes | str] = {}
    for i in range(first, first + count):
        members |= {f"{i:04d}.png": png(i), f"{i:04d}.cls": str(i % classes)}
    return members
