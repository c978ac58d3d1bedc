"""Writes ten of the handwritten test digits as PNG files, to have some pictures to classify.

python examples/digit_images.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np

from convit.data import open_source


def main() -> None:
    """One picture of each digit, the first of the test split."""
    if len(sys.argv) != 2:
        sys.exit(f"usage: python {sys.argv[0]} FOLDER")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    images = open_source("digits").splits["test"]
    for digit, class_name in enumerate(images.class_names):
        first = int(np.flatnonzero(images.targets == digit)[0])
        images.read(first).save(folder / f"a-{class_name}.png")


if __name__ == "__main__":
    main()
