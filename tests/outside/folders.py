"""Strangers' folders, made of small pictures that all differ."""

import zlib
from pathlib import Path

from PIL import Image

from convit.data import open_source
from tests.helpers import noise


def picture(name: str, size: tuple[int, int] = (8, 8)) -> Image.Image:
    """Noise that depends on the name: the same name the same picture."""
    return noise(size[1], size[0], zlib.crc32(name.encode()))


def put(root: Path, *names: str) -> Path:
    """Writes a picture under each name that ends like one, and a line of text under each other."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".tif"):
            picture(name).save(path)
        else:
            path.write_text("no picture\n")
    return root


def classes(root: Path, *names: str, images: int = 4, start: int = 0) -> Path:
    """Class folders with so many pictures each."""
    return put(root, *(f"{name}/{root.name}{start + i}.png" for name in names for i in range(images)))


def splits(data: Path) -> dict[str, list[int]]:
    """Split -> the number of images of each class."""
    return {split: images.counts().tolist() for split, images in open_source(str(data)).splits.items()}
