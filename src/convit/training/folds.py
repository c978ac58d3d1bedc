"""Several runs in one folder, each without another part of the images: ``convit train --folds K``.

Run i, in ``fold-i/``, is that of ``--folds K --fold i``: an ordinary run, which validates on the i-th part. The first
one decides every open option, the others take its values. When all are trained, each best model predicts the part that
it did not learn from, so every image is predicted once: the out-of-fold predictions. Of each run the best epoch was
chosen on that part, so accuracy on it is too high by a little.

Resumed, the folder goes on with the run that was stopped; a complete one is not touched.
"""

import csv
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from convit.classifier import Classifier
from convit.classifier_folder import FOLD, FOLDS
from convit.classifier_loading import average, load_folder
from convit.data.record import first_change
from convit.data.select import select
from convit.device import pick_device
from convit.errors import InputError, one_line
from convit.events import Event, Listener, PassBegan, RunBegan, Said, ignore, together
from convit.files import MOST_LIST, absolute, read, write, write_csv, write_json
from convit.options_file import to_yaml
from convit.training import run
from convit.training.engine import Measure, measure_nothing
from convit.training.evaluation import Evaluation, probabilities, score
from convit.training.look_ahead import look_ahead
from convit.training.options import Asked, asked_from
from convit.training.plan import MAY_CHANGE
from convit.training.planning import learning
from convit.training.run_folder import CONFIG, NOT_OF_THE_RUN, RunFolder, first_difference
from convit.training.stopping import Stopped

OUT_OF_FOLD = "out-of-fold.csv"
HEADING = ("image", "class", "fold", "predicted")
"""The first columns of the out-of-fold predictions; then there is one with the probability of each class."""
_GOES_ON = ("data", "data_root", "device", "save_minutes", "workers")
"""Options that a resumed run takes as they are asked for now."""
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
"""The 0.975 quantile of Student's t with 1, 2, ... degrees of freedom."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OutOfFold:
    """What is predicted of N images by runs that did not learn from them."""

    names: Sequence[str]
    folds: NDArray[np.int64]
    """(N,) the run that predicts it, from 1."""
    targets: NDArray[np.int64]
    """(N,) the class of each."""
    probabilities: NDArray[np.float64]
    """(N, classes)"""
    class_names: tuple[str, ...]

    def evaluation(self) -> Evaluation:
        """How right they are."""
        return score(
            torch.from_numpy(self.probabilities).clamp_min(1e-12).log().float(), self.targets, self.class_names
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Folds:
    """Runs of all folds that are complete."""

    folder: Path
    predictions: OutOfFold
    evaluation: Evaluation
    """Of the out-of-fold predictions, on all images to learn from."""
    each: tuple[float, ...]
    """Top-1 of each run on its part, in percent."""
    mean: float
    interval: tuple[float, float]
    """95% interval of the mean."""
    classifier: Classifier
    """The average of the best models."""


def train_folds(asked: Asked, tell: Listener = ignore, *, measure: Measure = measure_nothing) -> Folds:
    """Trains the run of each fold, and writes the out-of-fold predictions; with ``asked.resume`` it continues.

    Args:
        asked: the options, ``folds`` among them.
        tell, measure: as for :func:`convit.training.run.train`.

    Raises:
        InputError, Stopped, OSError: as there.
    """
    assert asked.folds is not None
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise InputError("folds: got it for several processes, expected --fold I for each run of several processes")
    folder = RunFolder(asked.resume or asked.out or _default_place(asked))
    if asked.resume is None:
        look_ahead(asked)
        folder.check_free(overwrite=asked.overwrite)
    with folder.locked():
        _begin(folder, asked)
        tell = together(tell, folder.listen)
        for number in range(1, asked.folds + 1):
            try:
                _train_one(folder, number, asked, tell, measure)
            except Stopped as stopped:
                raise Stopped(stopped.signum, folder.path) from stopped
            except InputError:
                if asked.resume is None and not _run_of(folder, 1).is_run:  # nothing was begun
                    folder.discard()
                raise
        return _finish(folder, asked, tell)


def _default_place(asked: Asked) -> Path:
    assert asked.data is not None
    look_ahead(asked)
    name = Path(select(asked.data, learning(asked)).name).name
    return Path("runs") / f"{name}-{asked.folds}-folds"


def _run_of(folder: RunFolder, number: int) -> RunFolder:
    return RunFolder(folder.path / f"{FOLD}{number}")


def _begin(folder: RunFolder, asked: Asked) -> None:
    """Writes the options, or, of what is resumed, holds them against those that it began with."""
    if asked.resume is None:
        folder.check_free(overwrite=asked.overwrite)  # nobody was quicker
        if asked.overwrite:
            folder.clear()
        write(folder.path / CONFIG, to_yaml(replace(asked, out=folder.path), without=NOT_OF_THE_RUN))
        return
    folder.check_run()
    began = folder.read_options().to_dict()
    if asked.out is not None and absolute(asked.out) != absolute(folder.path):
        raise InputError(f"out: got {asked.out} with --resume {folder.path}, expected none: they go on in their folder")
    if _run_of(folder, 1).is_run:  # it was begun with these options; a change by hand shows
        given = _run_of(folder, 1).read_plan().given
        own = {name: value for name, value in given.items() if name not in (*MAY_CHANGE, "fold")}
        written = {k: v for k, v in folder.read_options().given().items() if k not in (*MAY_CHANGE, "fold")}
        _same(folder, own, {k: began[k] for k in written}, f"{folder.path / CONFIG}: ")
    now = {name: value for name, value in asked.to_dict().items() if name not in MAY_CHANGE}
    _same(folder, {name: began[name] for name in now}, now, "")


def _same(folder: RunFolder, before: dict[str, object], now: dict[str, object], where: str) -> None:
    if differs := first_difference(before, now):
        name, was, found = differs
        raise InputError(
            f"{where}{name}: got {found}, the runs in {folder.path} began with {was}; expected that, or a new --out"
        )


def _train_one(folder: RunFolder, number: int, asked: Asked, tell: Listener, measure: Measure) -> None:
    """Begins the run of a fold or goes on with it; one that is complete is left as it is."""
    own = _run_of(folder, number)
    if (own.path / "evaluation.json").is_file():
        return
    tell(Said(f"fold {number} of {asked.folds}"))
    now = {name: value for name in _GOES_ON if (value := getattr(asked, name)) is not None}
    if own.is_run:
        options = asked_from(None, {"resume": own.path, **now})
    elif number == 1:
        options = replace(asked, fold=1, out=own.path, resume=None, overwrite=False)
    else:  # as the first one decided
        options = replace(_run_of(folder, 1).read_plan().options, fold=number, out=own.path, **now)

    def same_images(event: Event) -> None:
        if isinstance(event, RunBegan) and number > 1:
            _check_images(_run_of(folder, 1), own)

    run.train(options, together(tell, same_images), measure=measure)


def _check_images(first: RunFolder, own: RunFolder) -> None:
    """Raises :class:`InputError` if a run begins with other images than the first one did."""
    before, now = (dict(_images(one)) for one in (first, own))
    if before != now:
        name = next(n for n in (*before, *now) if before.get(n) != now.get(n))
        what = "is gone" if name not in now else "is new" if name not in before else "has another label or content"
        raise InputError(
            f"{own.path}: other images than when {first.path.name} began: {name!r} {what}; expected the same"
        )


def _images(own: RunFolder) -> Iterator[tuple[str, tuple[int, int]]]:
    """The name, label and content of each image of a run, whichever split it is in."""
    for images in own.read_record()["splits"].values():
        yield from zip(images["names"], zip(images["labels"], images["contents"], strict=True), strict=True)


# -- when all are trained ----------------------------------------------------------------------------------------------


def _finish(folder: RunFolder, asked: Asked, tell: Listener) -> Folds:
    """Predicts every image by the run that did not learn from it, and writes it."""
    assert asked.folds is not None
    device = pick_device(asked.device)
    parts, classifiers, each = [], [], []
    for number in range(1, asked.folds + 1):
        own = _run_of(folder, number)
        classifier = load_folder(own.path, device)
        part = _predicted(own, number, classifier, asked, tell)
        parts.append(part)
        classifiers.append(classifier)
        each.append(part.evaluation().top1)
    predictions = OutOfFold(
        names=[name for part in parts for name in part.names],
        folds=np.concatenate([part.folds for part in parts]),
        targets=np.concatenate([part.targets for part in parts]),
        probabilities=np.concatenate([part.probabilities for part in parts]),
        class_names=parts[0].class_names,
    )
    evaluation = predictions.evaluation()
    mean, interval = mean_interval(each)
    classifier = average(classifiers)
    write_out_of_fold(predictions, folder.path / OUT_OF_FOLD)
    document = {
        "folds": asked.folds,
        "top1_of_each": each,
        "mean": mean,
        "interval": list(interval),
        "out_of_fold": evaluation.to_dict(),
    }
    write_json(folder.path / FOLDS, document)  # the last: with it all is there
    said = f"{mean:.2f}% (95% interval {interval[0]:.2f} to {interval[1]:.2f}%)"
    tell(Said(f"validation top-1 of the {asked.folds} folds: mean {said}"))
    tell(Said(f"out-of-fold {evaluation.accuracy} on {evaluation.num_images} images: {folder.path / OUT_OF_FOLD}"))
    return Folds(
        folder=folder.path,
        predictions=predictions,
        evaluation=evaluation,
        each=tuple(each),
        mean=mean,
        interval=interval,
        classifier=classifier,
    )


def _predicted(own: RunFolder, number: int, classifier: Classifier, asked: Asked, tell: Listener) -> OutOfFold:
    """What a run says of its validation images."""
    options = own.read_plan().options
    data = asked.data or options.data
    assert data is not None
    choice = learning(options, own.read_skipped(), recorded=own.read_split())
    selection = select(data, replace(choice, data_root=asked.data_root))
    if change := first_change(own.read_record(), selection.record):
        raise InputError(f"{data}: other images than when the run in {own.path} started: {change}; expected the same")
    images = selection.splits["val"]
    tell(PassBegan(f"out-of-fold predictions, fold {number}", len(images)))
    return OutOfFold(
        names=images.names,
        folds=np.full(len(images), number),
        targets=images.targets,
        probabilities=probabilities(classifier, images, tell),
        class_names=images.class_names,
    )


def mean_interval(values: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """The mean of K accuracies in percent, and its 95% interval by Student's t, within 0 to 100.

    The runs share most of their images, so it is somewhat too narrow.

    >>> mean, (low, high) = mean_interval([90.0, 92.0, 94.0])
    >>> mean, round(low, 2), round(high, 2)
    (92.0, 87.03, 96.97)
    """
    freedom = len(values) - 1
    quantile = _STUDENT[freedom - 1] if freedom <= len(_STUDENT) else 1.96 + 2.5 / freedom
    mean, off = float(np.mean(values)), quantile * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return mean, (max(0.0, mean - off), min(100.0, mean + off))


def write_out_of_fold(predictions: OutOfFold, path: Path) -> None:
    """Writes a line for each image: name, class, fold, predicted class, and the probability of each class."""
    names = predictions.class_names
    rows = (
        (name, names[target], fold, names[values.argmax()], *(f"{value:.6g}" for value in values))
        for name, target, fold, values in zip(
            predictions.names, predictions.targets, predictions.folds, predictions.probabilities, strict=True
        )
    )
    write_csv(path, [(*HEADING, *names), *rows])


def read_out_of_fold(path: Path) -> OutOfFold:
    """What :func:`write_out_of_fold` wrote.

    Raises:
        InputError: it is something else.
    """
    try:
        text = read(path, MOST_LIST).decode()
        head, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        class_names = tuple(head[len(HEADING) :])
        if tuple(head[: len(HEADING)]) != HEADING or not rows:
            raise ValueError("other columns")
        place = {name: i for i, name in enumerate(class_names)}
        found = np.array([[float(cell) for cell in row[len(HEADING) :]] for row in rows])
        if found.shape != (len(rows), len(class_names)) or not (np.abs(found - 0.5) <= 0.5).all():
            raise ValueError("no probability in a place of one")
        return OutOfFold(
            names=[row[0] for row in rows],
            folds=np.array([int(row[2]) for row in rows]),
            targets=np.array([place[row[1]] for row in rows]),
            probabilities=found,
            class_names=class_names,
        )
    except (OSError, ValueError, KeyError, IndexError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
        raise InputError(f"{path}: not readable ({why}); expected what 'convit train' wrote") from error
