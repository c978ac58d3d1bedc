"""Calibrates a run's best model, at its end: its temperature and thresholds."""

import torch
from torch import Tensor

from convit.calibration import Calibration, calibrate
from convit.classifier import Classifier
from convit.events import PassBegan
from convit.training.distributed import World
from convit.training.engine import Trainer
from convit.training.evaluation import evaluate


def calibrated(trainer: Trainer, classifier: Classifier) -> Calibration | None:
    """The calibration of a classifier on the validation images of its run; None for logits that are not finite.

    It is a function of the model and the images, so that a resumed run has the same. The validation images also chose
    the best epoch, which moves one number very little.

    Raises:
        Stopped: the run was asked to stop; all that was trained is saved.
        WorkerDied: a process that loads images.
    """
    images, gathered = trainer.images["val"], Logits()
    trainer.tell(PassBegan("temperature, on the validation images", len(images)))
    evaluate(
        classifier.model,
        images,
        classifier.preprocess,
        workers=trainer.plan.options.workers or 0,
        copies=trainer.copies["val"],
        on_batch=trainer.observe_batch,
        on_logits=gathered.add,
        world=trainer.world,
    )
    logits = gathered.whole(len(images), len(classifier.class_names), trainer.world)
    return calibrate(logits.numpy(), images.targets) if logits.isfinite().all() else None


class Logits:
    """The logits of every image, gathered from the batches of :func:`convit.training.evaluate`."""

    def __init__(self) -> None:
        self._rows: list[Tensor] = []

    def add(self, logits: Tensor, target: Tensor) -> None:
        """The next images, ``(n, classes)``."""
        self._rows.append(logits)

    def whole(self, images: int, classes: int, world: World) -> Tensor:
        """``(images, classes)`` fp32; of several processes each has every n-th image, and gets all of them."""
        out = torch.zeros(images, classes)
        out[world.rank :: world.size] = torch.cat(self._rows) if self._rows else out[:0]
        return world.sum(out)
