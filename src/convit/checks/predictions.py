"""Where predictions come from that labels are held against: always of models that did not learn from the image."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convit.checks.check import Predict, Predicted
from convit.checks.pictures import Pictures
from convit.choices import Device
from convit.classifier_folder import fold_folders
from convit.classifier_loading import load
from convit.data.select import Known, Selection
from convit.device import pick_device
from convit.errors import InputError, counted
from convit.events import Listener, PassBegan, ignore
from convit.options import make
from convit.training.evaluation import probabilities
from convit.training.folds import OUT_OF_FOLD, OutOfFold, read_out_of_fold, train_folds
from convit.training.options import Asked, asked_from
from convit.training.run_folder import RunFolder


def run_split(run: Path, selection: Selection) -> Mapping[str, str] | None:
    """Name -> ``train`` or ``val``, as one run split images that had no splits of their own; None of several folds."""
    if "all" not in selection.splits or fold_folders(run):
        return None
    split = RunFolder(run).known().split
    return {name: part for part, names in split.items() for name in names}


def of_run(run: Path, selection: Selection, device: Device = "auto", tell: Listener = ignore) -> Predict:
    """What a run says of the images that it did not learn from: its out-of-fold predictions, if it has folds, else
    those of its model, on all others.

    Raises:
        InputError: a run on other images or classes.
    """
    known = RunFolder(run).known()
    if set(known.class_names) != set(selection.class_names):
        raise InputError(f"run: {run} knows other classes than {selection.name} has; expected a run on this data")
    _check_own(run, known, selection)
    if fold_folders(run):
        source = f"the out-of-fold predictions of {run}"
        return _held_out(read_out_of_fold(run / OUT_OF_FOLD), run, source, device, tell)

    def predict(pictures: Pictures, decoded: NDArray[np.bool_]) -> Predicted:
        learned = set(known.split.get("train", ()))
        unseen = [i for i in np.flatnonzero(decoded).tolist() if pictures.name(i) not in learned]
        source = f"the predictions of {run}, on the images that it did not learn from"
        return Predicted(np.array(unseen, np.int64), _predictions(run, pictures, unseen, device, tell), source)

    return predict


def _check_own(run: Path, known: Known, selection: Selection) -> None:
    """Raises :class:`InputError` if the run's images are not these: then names do not tell what it learned from."""
    now = {
        name: content
        for images in selection.splits.values()
        for name, content in zip(images.names, images.contents(), strict=True)
    }
    learned = known.split.get("train", ())
    contents = known.contents.get("train", ())
    changed = sum(now.get(name, content) != content for name, content in zip(learned, contents, strict=False))
    there = sum(name in now for name in learned)
    if not contents or 2 * (there - changed) < len(learned):
        raise InputError(
            f"run: {run} learned from other images, {known.root or 'which are not known'}; expected a run on "
            f"{selection.root}"
        )


def _predictions(
    run: Path, pictures: Pictures, chosen: list[int], device: Device, tell: Listener
) -> NDArray[np.float64]:
    """(M, classes) probabilities of images, in the order of the data's classes."""
    classifier = load(run, pick_device(device))
    order = [classifier.class_names.index(name) for name in pictures.class_names]
    rows = [np.empty((0, len(order)))]
    tell(PassBegan("predicting", len(chosen)))
    for images in pictures.sets.values():
        indices = [index for own, index in map(pictures.place, chosen) if own is images]
        if indices:
            some = images.subset(indices).with_classes(classifier.class_names)
            rows.append(probabilities(classifier, some, tell)[:, order])
    return np.concatenate(rows)


def _held_out(predictions: OutOfFold, runs: Path, source: str, device: Device, tell: Listener) -> Predict:
    """Predictions that were written, for the images of the same names; for the others, which no run learned from, such
    as test images, those of the average of the runs."""

    def predict(pictures: Pictures, decoded: NDArray[np.bool_]) -> Predicted:
        row = {name: i for i, name in enumerate(predictions.names)}
        whole = np.flatnonzero(decoded).tolist()
        images = [i for i in whole if pictures.name(i) in row]
        others = [i for i in whole if pictures.name(i) not in row]
        order = [predictions.class_names.index(name) for name in pictures.class_names]
        rows = np.array([row[pictures.name(i)] for i in images], np.int64)
        found = predictions.probabilities[rows][:, order]
        if not others:
            return Predicted(np.array(images, np.int64), found, source)
        found = np.concatenate((found, _predictions(runs, pictures, others, device, tell)))
        averaged = f"{source}, and their average on {counted(len(others), 'image')} that none of them learned from"
        return Predicted(np.array([*images, *others], np.int64), found, averaged)

    return predict


def by_training(folder: Path, options: Mapping[str, Any], tell: Listener = ignore) -> Predict:
    """Trains runs of several folds in a folder, or goes on with them; their out-of-fold predictions.

    Args:
        folder: where; a folder of the same runs is continued, or taken as it is.
        options: of ``convit train``, ``data`` and ``folds`` among them.
        tell: gets the events.

    Raises:
        InputError, Stopped: as :func:`convit.training.folds.train_folds`.
    """
    begun = (folder / "config.yaml").is_file()
    asked = asked_from(None, {**options, "resume": folder}) if begun else make(Asked, {**options, "out": folder})

    def predict(pictures: Pictures, decoded: NDArray[np.bool_]) -> Predicted:
        result = train_folds(asked, tell)
        runs = f"{len(result.each)} runs that were trained for it (top-1 {result.mean:.1f}%), {folder}"
        source = f"the out-of-fold predictions of {runs}"
        return _held_out(result.predictions, folder, source, asked.device, tell)(pictures, decoded)

    return predict
