"""What a run notes of its attention after each epoch."""

from typing import Any

from convit.analysis.batches import image_batches
from convit.analysis.capture import average
from convit.analysis.metrics import non_locality
from convit.classifier import Classifier
from convit.data import ImageSet
from convit.errors import InputError


def attention_record(classifier: Classifier, images: ImageSet, most: int = 64) -> dict[str, Any]:
    """How far every head looks (equation 8), averaged over images: what an observer's ``measure`` may return.

    Of the real forward pass, in evaluation form. It depends on nothing but the weights and the images, and leaves the
    model, its gradients and the random state as they were.

    Args:
        classifier: the model and its preprocessing.
        images: such as a run's validation images.
        most: average over so many at most, evenly spread over the set.

    Returns:
        ``{"non_locality": [layers][heads]}`` of every attention layer, in patches, of four digits behind the point.

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
    count = min(most, len(images))
    chosen = [i * len(images) // count for i in range(count)]
    far = average(
        lambda layer: non_locality(layer.mixed, layer.grid, layer.num_prefix_tokens),
        classifier.model,
        image_batches(classifier, map(images.read, chosen)),
    )
    return {"non_locality": [[round(value, 4) for value in far[index].tolist()] for index in sorted(far)]}
