"""Starts a run: for ``convit.train`` in Python, for the command ``convit train`` and for experiments."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convit.analysis.history import attention_record
from convit.errors import InputError
from convit.events import Listener, together
from convit.training import run
from convit.training.folds import Folds, train_folds
from convit.training.options import Asked, asked_from
from convit.training.run import Run


def start(asked: Asked, *listeners: Listener) -> Run | Folds:
    """Starts a run, or the runs of ``--folds``, or resumes them. Every epoch records the non-locality of every head
    (equation 8).

    Args:
        asked: the options.
        listeners: functions of one event of :mod:`convit.events`.

    Raises:
        InputError, Stopped: as :func:`train`.
    """
    begin = train_folds if asked.folds is not None and asked.fold is None else run.train
    return begin(asked, together(*listeners), measure=attention_record)


def train(
    data: str | os.PathLike[str] | None = None,
    *,
    config: str | Path | None = None,
    listeners: Sequence[Listener] = (),
    **options: Any,
) -> Run | Folds:
    """Trains a classifier on labelled images and writes its run folder.

    Args:
        data: a folder, a list, shards, or the name of a data set.
        config: a YAML file of options, such as the ``config.yaml`` of a run that is to be repeated.
        listeners: functions of one event of :mod:`convit.events`, such as a progress bar. Nothing is printed.
        options: those of ``convit train``, such as ``epochs=3, out="runs/mine"``; they override those of ``config``.
            :class:`convit.training.Asked` lists them.

    Returns:
        The run: its ``folder``, the ``best`` epoch's record, the ``evaluation`` on the test images (or, where there are
        none, on the validation images), and the best model as a ``classifier``. With ``folds`` and without ``fold``
        they are :class:`convit.training.folds.Folds`: a ``folder``, the out-of-fold ``evaluation``, the average of the
        runs as a ``classifier``.

    Raises:
        InputError: a ValueError whose message is one line: an unknown option or one out of range, options that exclude
            each other, data that cannot be used. Nothing is written then.
        convit.training.Stopped: Ctrl-C or SIGTERM; ``convit.train(resume=folder)`` continues with the same bits.

    Example:
        >>> import convit
        >>> run = convit.train("digits", per_class=4, epochs=1, batch_size=8, out="runs/tiny", skip_test=True)
        >>> run.best["epoch"], run.split, (run.folder / "config.yaml").is_file()
        (1, 'val', True)
    """
    if not isinstance(data, str | os.PathLike | None):
        raise InputError(f"data: got a {type(data).__name__}, expected the path of a folder or list, or a name")
    given = options if data is None else {"data": os.fsdecode(data), **options}
    return start(asked_from(config, given), *listeners)
