"""Classifiers out of folders and off the Hugging Face Hub; the average of several."""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from convit import hub
from convit.calibration import checksum_with
from convit.classifier import Classifier
from convit.classifier_config import read_config_file
from convit.classifier_folder import CONFIG, HUB, WEIGHTS, check_folder, check_source, fold_folders
from convit.errors import InputError, brief, one_line
from convit.models import ConViT, create_model
from convit.models.average import Average
from convit.models.checkpoints import check_numbers
from convit.models.seal import checksum_of, config_of, read_sealed


def load(
    source: str | Path,
    device: torch.device | str = "cpu",
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
) -> Classifier:
    """The classifier of a run folder, of the runs of ``--folds`` (:func:`average`), of a folder of
    :meth:`Classifier.save_pretrained`, or on the Hugging Face Hub.

    Its model is in evaluation mode, as ``Module.eval()`` leaves it. Nothing that its files name is imported, nothing in
    them is executed.

    Args:
        source: the folder; or ``"hf:owner/name"``, a repository on the Hub.
        device: where the model goes.
        revision: branch, tag or commit on the Hub.
        token: for a private repository [that of ``hf auth login``].
        cache_dir: where downloads are kept [the Hub client's]; what is in it works without a network.

    Raises:
        InputError: no such folder or repository, no network, files that do not fit together or are of something else,
            or damaged weights (where they have a checksum: what this version wrote).
    """
    if not isinstance(source, str | Path):
        raise InputError(f"source: got a {type(source).__name__}, expected the path of a folder, or 'hf:owner/name'")
    check_source(source)
    if not str(source).startswith(HUB):
        if revision is not None:
            raise InputError(f"revision: got {revision!r} for the folder {source}, expected none")
        runs = fold_folders(Path(source))
        return average([load_folder(run, device) for run in runs]) if runs else load_folder(Path(source), device)
    repo_id = str(source).removeprefix(HUB)
    got = hub.download(repo_id, CONFIG, WEIGHTS, read_config_file, revision=revision, token=token, cache_dir=cache_dir)
    return load_folder(got, device)


def average(classifiers: Sequence[Classifier]) -> Classifier:
    """Several classifiers of the same classes and images as one, whose probabilities are the mean of theirs, each with
    its own temperature.

    It predicts, is evaluated and exported like any other; it has no folder of its own to be saved in.

    Raises:
        InputError: they have other classes, or prepare images in another way.
    """
    first = classifiers[0]
    for other in classifiers[1:]:
        if (other.class_names, other.preprocess) != (first.class_names, first.preprocess):
            raise InputError("classifiers: other classes, or another preprocessing; expected those of one training")
    temperatures = [classifier.temperature for classifier in classifiers]
    made: Any = Average([classifier.model for classifier in classifiers], temperatures)
    return Classifier(
        made.eval(), first.preprocess, first.class_names, model_name=first.model_name, model_args=first.model_args
    )


def load_folder(folder: Path, device: torch.device | str, make: Callable[..., ConViT] = create_model) -> Classifier:
    """The classifier of a folder; ``make`` makes the model, without weights, of its name and keywords.

    Raises:
        InputError: as :func:`load`.
    """
    check_folder(folder)
    if not isinstance(device, str | torch.device):  # PyTorch takes 1.5 or a tensor for none
        raise InputError(f"device: got {brief(device)}, expected a name or a torch.device, such as 'cpu'")
    config = read_config_file(folder / CONFIG)
    name, classes, args, preprocess = config.model_name, config.class_names, config.model_args, config.preprocess
    try:
        made = partial(make, name, num_classes=len(classes), **args)
        known: dict[str, Any] = {"model_name": name, "model_args": args, "training": config.training}
        outline = Classifier(made(device="meta"), preprocess, classes, **known).model
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise InputError(f"{folder / CONFIG}: {one_line(error, 400)}") from error
    weights = read_sealed(folder / WEIGHTS)
    check_numbers(folder / WEIGHTS, outline.state_dict(), weights)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a model without memory takes no weights
            outline.load_state_dict(weights)
    except RuntimeError as error:
        wanted = f"not the weights of {name} in {CONFIG}"
        raise InputError(f"{folder / WEIGHTS}: {wanted} ({one_line(error)})") from error
    if config_of(folder / WEIGHTS) not in ("", config.fingerprint):
        raise InputError(
            f"{folder / CONFIG}: not as it was written with {WEIGHTS} (other class names, preprocessing or model); "
            "expected the two files of one run, unchanged; for other class names load it unchanged, set class_names, "
            "and save() it"
        )
    known["calibration"] = config.calibration
    of_weights, found = checksum_of(folder / WEIGHTS), config.calibration
    if found and of_weights and config.calibration_checksum != checksum_with(found, of_weights):
        raise InputError(
            f"{folder / CONFIG}: its calibration is not as it was written for {WEIGHTS} (changed, or of other "
            "weights); expected the two files of one run, unchanged, or no entry 'calibration'"
        )
    model = made()  # of the size of the file: no sooner is memory taken for it
    model.load_state_dict(weights)
    try:
        classifier = Classifier(model.eval(), preprocess, classes, **known)
        classifier.loaded = (found, of_weights)
        return classifier.to(device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError(f"device: got {brief(device)}, expected one of this machine ({one_line(error)})") from error
