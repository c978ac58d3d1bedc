"""Pictures for tests of checks: smooth random ones, like photos, in a folder of classes."""

from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, size: tuple[int, int] = (96, 72)) -> Image.Image:
    """A smooth picture with fine grain, another one for every seed."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    grain = rng.integers(-12, 13, (size[1], size[0], 3))
    return Image.fromarray((np.asarray(coarse, np.int64) + grain).clip(0, 255).astype(np.uint8))


def save(image: Image.Image, path: Path, **how: int) -> Path:
    """Writes a picture; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **how)
    return path


def photos(root: Path, per_class: int = 12, splits: tuple[str, ...] = ("train", "test")) -> Path:
    """``root/SPLIT/CLASS/N.jpg``, all different, of the classes ape and bee."""
    seed = 0
    for split in splits:
        for name in ("ape", "bee"):
            for i in range(per_class):
                save(picture(seed), root / split / name / f"{i}.jpg", quality=90)
                seed += 1
    return root
