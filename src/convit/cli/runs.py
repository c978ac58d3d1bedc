"""The model of a run, for the commands that take one."""

from pathlib import Path

from convit.choices import Device, Views
from convit.classifier import Classifier
from convit.classifier_loading import load
from convit.device import pick_device
from convit.errors import InputError


def load_run(path: Path, device: Device = "auto", views: Views = "one") -> Classifier:
    """The best model of a run folder, on a device; with ``"flip"`` it answers for two views of each image.

    Raises:
        InputError: no run, no such device, or a model that is no use because its training diverged.
    """
    classifier = load(path, pick_device(device))
    if not all(tensor.isfinite().all() for tensor in classifier.model.state_dict().values()):
        raise InputError(
            f"{path}: the model's weights are not finite, its training diverged; expected another run, such as one "
            "with a lower --lr"
        )
    return classifier.mirrored() if views == "flip" else classifier
