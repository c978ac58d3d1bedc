"""What is measured of a trained model besides its accuracy: FLOPs, and accuracy with parts switched off."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from convit.analysis import gates, masked, without_position_embedding
from convit.classifier import Classifier
from convit.data import ImageSet, open_source
from convit.models import create_model
from convit.train import TrainConfig, evaluate
from convit.train.run_folder import RunFolder

NO_POSITION_EMBEDDING = "no position embedding"


def masked_key(kind: str, layers: int) -> str:
    """The name of a measurement: ``kind`` (content or position) switched off in the first ``layers`` layers."""
    return f"no {kind} in {layers}"


def masked_accuracies(
    classifier: Classifier, images: ImageSet, layers: Iterable[int], *, workers: int = 0
) -> dict[str, float]:
    """Top-1 in percent without the absolute position embedding, and without content or position in first layers.

    Args:
        classifier: the model and its preprocessing.
        images: labelled with its classes.
        layers: of how many first GPSA layers each time; no more than there are are taken.
        workers: processes that load images.
    """
    model = classifier.model

    def accuracy(switched_off: AbstractContextManager[None]) -> float:
        with switched_off:
            return evaluate(model, images, classifier.preprocess, workers=workers).top1

    out = {NO_POSITION_EMBEDDING: accuracy(without_position_embedding(model))}
    gated = len(gates(model))
    for count in sorted({count for count in layers if 1 <= count <= gated}):
        for kind in ("content", "position"):
            out[masked_key(kind, count)] = accuracy(masked(model, **{kind: count}))
    return out


def final_images(run: Path, config: TrainConfig, class_names: Sequence[str]) -> ImageSet:
    """The images that the best model of a run folder was evaluated on: the test part, else the validation images."""
    split = RunFolder(run).read_split()
    part = "test" if "test" in split else "val"
    source = open_source(config.data, root=config.source.data_root, missing=config.source.skip_bad)
    images = source.parts.get(part) or source.train or source.whole
    assert images is not None
    wanted = set(split[part])
    return images.subset([i for i, name in enumerate(images.names) if name in wanted]).with_classes(class_names)


def flops(classifier: Classifier) -> int:
    """Multiply-adds of a model for one image, which is what the paper's FLOPs count."""
    classes, args = len(classifier.class_names), classifier.model_args
    model = create_model(classifier.model_name, device="meta", num_classes=classes, **args).eval()
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, *classifier.preprocess.image_size, device="meta"))
    return counter.get_total_flops() // 2
