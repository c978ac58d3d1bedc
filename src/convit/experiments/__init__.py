"""The paper's experiments on any data: a grid of runs, then tables and pictures of it.

- ``settle``: the settings of an experiment with the study's own for what is left open.
- ``run_experiment``: makes the runs that are not there yet, and the report.
- ``STUDIES``: the experiments by name.

A run of a grid is an ordinary run of :func:`convit.train.train` in its own run folder, so it goes on where it stopped.
"""

from convit.experiments.cells import Cell, Result
from convit.experiments.pool import Listener, StoppedGrid
from convit.experiments.run import STUDIES, Outcome, run_experiment, settle
from convit.experiments.settings import Settings

__all__ = ["STUDIES", "Cell", "Listener", "Outcome", "Result", "Settings", "StoppedGrid", "run_experiment", "settle"]
