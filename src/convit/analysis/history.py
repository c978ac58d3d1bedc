"""The attention metrics that a run records after each epoch."""

import copy
from dataclasses import replace
from typing import Any

from convit.analysis.batches import evenly_spread, image_batches
from convit.analysis.capture import average
from convit.analysis.metrics import non_locality
from convit.classifier import Classifier
from convit.data import ImageSet
from convit.data.copies import Copies
from convit.errors import InputError


def attention_record(classifier: Classifier, images: ImageSet | Copies, most: int = 64) -> dict[str, Any]:
    """The non-locality of every head (equation 8), averaged over images; ``convit.train`` records it each epoch.

    It is computed from a forward pass in evaluation mode, depends only on the weights and the images, and does not
    change the model, its gradients or the random state.

    Args:
        classifier: the model and its preprocessing.
        images: such as a run's validation images; or copies of them, made for this classifier's preprocessing.
        most: average over at most this many, evenly spread over the image set.

    Returns:
        ``{"non_locality": [layers][heads]}`` of every attention layer, in patches, rounded to four decimals.

    Raises:
        InputError: no images, or ``most`` below 1.

    Example:
        >>> import numpy as np
        >>> from convit import Classifier, ConViT
        >>> from convit.data import ArrayImages, Preprocess
        >>> model = ConViT(img_size=16, patch_size=4, num_classes=2, embed_dim=18, depth=2, num_heads=9,
        ...                local_up_to_layer=1)
        >>> classifier = Classifier(model, Preprocess(image_size=(16, 16)), ["cat", "dog"], model_name="mine")
        >>> images = ArrayImages(np.zeros((3, 16, 16), np.uint8), ["a", "b", "c"], [0, 1, 1], ["cat", "dog"])
        >>> [len(heads) for heads in attention_record(classifier, images)["non_locality"]]
        [9, 9]
    """
    if most < 1:
        raise InputError(f"most: got {most}, expected at least 1")
    if len(images) == 0:
        raise InputError("images: got none, expected at least one")
    if isinstance(images, Copies):  # their margin is cut off already
        classifier = copy.copy(classifier)
        classifier.preprocess = replace(classifier.preprocess, crop_pct=1.0)
    far = average(
        lambda layer: non_locality(layer.mixed, layer.grid, layer.num_prefix_tokens),
        classifier.model,
        image_batches(classifier, map(images.read, evenly_spread(len(images), most))),
    )
    return {"non_locality": [[round(value, 4) for value in far[index].tolist()] for index in sorted(far)]}
