"""Which pictures to average over, and their batches, whose size is limited by the memory of the attention maps."""

from collections.abc import Iterable, Iterator
from itertools import islice

import torch
from PIL import Image
from torch import Tensor

from convit.classifier import Classifier
from convit.data import evaluation_transform

MOST = 32
"""Pictures in a batch at most."""
MAP_NUMBERS = MOST * 196**2
"""How many numbers the maps of one head may hold for a batch: batches of larger pictures are smaller."""


def evenly_spread(count: int, most: int) -> list[int]:
    """Positions of ``most`` of ``count`` things at equal distances, the first among them; all if there are fewer.

    >>> evenly_spread(10, 4), evenly_spread(2, 4)
    ([0, 2, 5, 7], [0, 1])
    """
    taken = min(most, count)
    return [i * count // taken for i in range(taken)]


def image_batches(classifier: Classifier, images: Iterable[Image.Image]) -> Iterator[Tensor]:
    """Batches ``(B, 3, height, width)`` in the model's type, on the CPU. A DataLoader would draw a random number.

    Args:
        classifier: whose preprocessing they get.
        images: RGB pictures of any size.
    """
    transform = evaluation_transform(classifier.preprocess)
    dtype = next(classifier.model.parameters()).dtype
    height, width = (side // classifier.model.patch_size for side in classifier.preprocess.image_size)
    size = max(1, min(MOST, MAP_NUMBERS // (height * width) ** 2))
    left = iter(images)
    while some := [transform(image) for image in islice(left, size)]:
        yield torch.stack(some).to(dtype)
