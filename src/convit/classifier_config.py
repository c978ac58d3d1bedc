"""``config.json``: everything of a classifier but its weights, read from a file that is not trusted."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from convit import files
from convit.calibration import Calibration, of_entry
from convit.classifier_folder import CONFIG, lack
from convit.data import Preprocess
from convit.errors import InputError, brief, one_line
from convit.model_card import TrainingFacts
from convit.models.ranges import check_of_file
from convit.prediction import check_class_names

FOR_TIMM = ("num_classes", "input_size", "classifier", "first_conv")
"""Entries of the ``pretrained_cfg`` in a ``config.json`` that are timm's, not the preprocessing's."""


class ClassifierConfig(NamedTuple):
    """What a ``config.json`` says: everything of a classifier but its weights."""

    model_name: str
    class_names: list[str]
    model_args: dict[str, Any]
    preprocess: Preprocess
    training: TrainingFacts | None
    calibration: Calibration | None
    calibration_checksum: str
    """:func:`convit.calibration.checksum_with` of it and of the weights that it was written with."""
    fingerprint: str
    """Of all of it but the training facts and the calibration, as :func:`fingerprint_of_config` makes it."""


def fingerprint_of_config(config: Mapping[str, Any]) -> str:
    """Differs for what gives other answers with the same weights."""
    names = ("architecture", "num_classes", "model_args", "pretrained_cfg", "full_scale")
    return files.fingerprint({name: config.get(name) for name in names})


def read_config(folder: str | Path) -> ClassifierConfig:
    """The ``config.json`` of a run folder. Nothing that it names is imported.

    Raises:
        InputError: not such a folder, or a file of something else.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise InputError(f"{folder}: {lack(Path(folder), CONFIG)}; expected a run folder of 'convit train'")
    return read_config_file(path)


def read_config_file(path: Path) -> ClassifierConfig:
    """Model name, class names, model arguments, preprocessing and training facts of a ``config.json``."""
    try:
        config = files.parse_json(files.read(path, files.MOST_JSON), finite=False)  # the field is named
        if not isinstance(config, dict) or not isinstance(config.get("pretrained_cfg", {}), dict):
            raise TypeError("no names with values")
        cfg = dict(config["pretrained_cfg"])
        classes = cfg.pop("label_names")
        preprocess = {key: value for key, value in cfg.items() if key not in FOR_TIMM}
        size = cfg["input_size"]
        if not isinstance(size, list):
            raise TypeError(f"input_size is {brief(size)}, no list")
        preprocess |= {"image_size": size[1:], "full_scale": config.get("full_scale")}
        name, args = config["architecture"], config["model_args"]
        if not (isinstance(name, str) and isinstance(args, dict) and isinstance(classes, list)):
            raise TypeError("an entry of the wrong type")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        found = f"no entry {one_line(error)}" if isinstance(error, KeyError) else one_line(error)
        raise InputError(
            f"{path}: not a model's configuration ({found}); expected what 'convit train' writes"
        ) from error
    try:
        check_of_file(args)
        check_class_names(classes, len(classes))
        training = TrainingFacts.from_dict(config["training"]) if "training" in config else None
        calibration, checksum = of_entry(config["calibration"]) if "calibration" in config else (None, "")
        settings = Preprocess.from_dict(preprocess)
        known = fingerprint_of_config(config)
        return ClassifierConfig(name, classes, args, settings, training, calibration, checksum, known)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
