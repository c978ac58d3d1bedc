"""The attention metrics that a run records after each epoch, and how to read them."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from convit.analysis.batches import evenly_spread, image_batches
from convit.analysis.capture import average
from convit.analysis.metrics import non_locality
from convit.classifier import Classifier
from convit.data import ImageSet
from convit.data.copies import Copies
from convit.errors import InputError, one_line
from convit.files import parse_json, read


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


def read_history(path: Path) -> list[dict[str, Any]]:
    """The epochs of a run, with the attention metrics that it recorded.

    Args:
        path: a run's ``metrics.jsonl``.

    Returns:
        ``{"epoch", "gates", "non_locality"}`` of each epoch, values ``[layers][heads]``. Values that are missing or not
        all finite, as after a divergence, are left out. Empty if there is no such file.

    Raises:
        InputError: a line that is no epoch's record.
    """
    if not path.is_file():
        return []
    history = []
    for number, line in enumerate(read(path).splitlines(), start=1):
        try:
            history.append(_attention_of(parse_json(line, finite=False)))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise InputError(
                f"{path}: line {number} is no epoch's record ({one_line(error)}); expected a JSON object, "
                "as 'convit train' writes"
            ) from error
    return history


def _attention_of(record: dict[str, Any]) -> dict[str, Any]:
    """The epoch, and those of its values that are finite."""
    found: dict[str, Any] = {"epoch": int(record["epoch"])}
    for key in ("gates", "non_locality"):
        values = np.array(record.get(key) or [], dtype=np.float64)
        if values.size and np.isfinite(values).all():
            found[key] = values.tolist()
    return found
