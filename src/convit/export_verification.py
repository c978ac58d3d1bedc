"""How far the answers of an exported file are from the model's."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from convit.classifier import Classifier
from convit.errors import InputError
from convit.models import ConViT

TOLERANCE = 1e-4
"""The largest difference from PyTorch in fp32, as a part of the largest logit, that a file may have."""
BATCHES = (1, 2, 7)
"""The batch sizes that each file is checked at."""

Run = Callable[[Tensor], Tensor]


def checked_sizes(classifier: Classifier, dynamic_size: bool) -> tuple[tuple[int, int], ...]:
    """The image sizes to compare at: the classifier's own, then one to the side of it and one smaller."""
    height, width = classifier.preprocess.image_size
    if not dynamic_size:
        return ((height, width),)
    p = classifier.model.patch_size
    own = (max(height, 2 * p), max(width, 2 * p))
    smaller = (max(2 * p, height // p // 2 * p), max(3 * p, width // p // 2 * p))
    return tuple(dict.fromkeys((own, (own[0] + p, own[1] + 3 * p), smaller)))


def verified(
    model: ConViT,
    run: Run,
    sizes: Sequence[tuple[int, int]],
    path: Path,
    temperature: float = 1.0,
    tolerance: float = TOLERANCE,
) -> float:
    """The largest difference of a logit between ``run`` and the model with its temperature, as a part of the largest
    logit."""
    generator = torch.Generator().manual_seed(0)
    worst = scale = 0.0
    for height, width in sizes:
        for batch in BATCHES:
            images = torch.randn(batch, model.in_chans, height, width, generator=generator)
            with torch.no_grad():
                expected, found = model(images) / temperature, run(images)
            assert found.shape == expected.shape
            difference = (found - expected).abs().max().item()
            worst = difference if difference != difference else max(worst, difference)  # a NaN stays one
            scale = max(scale, expected.abs().max().item())
            if worst != worst:
                break
    relative = worst / scale if scale else worst
    if not relative <= tolerance:
        raise InputError(
            f"{path}: not written: its largest difference from PyTorch would be {relative:.1e} of the largest logit, "
            f"expected at most {tolerance:.0e}"
        )
    return relative
