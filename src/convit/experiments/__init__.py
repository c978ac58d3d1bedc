"""The paper's experiments on any data.

A study (:mod:`convit.experiments.studies`) is a function from its settings to variants of a run, and one from the
results to tables and pictures. Each cell of its grid is an ordinary run, made by :mod:`convit.experiments.cell` as
``convit train --config`` makes it, so it goes on where it stopped.

- ``settings``: what can be set, and what is decided where nothing is (``settle``).
- ``run``: ``run_experiment``, from settings to the report.
- ``study``, ``studies``: what an experiment is, and those that there are.
- ``grid``, ``cell``: the runs that are not there yet, each in a process of its own.
- ``folder``, ``results``: what an experiment keeps, and what is read from its run folders.
- ``tables``, ``curves``: what reports are made of.

Besides, ``forecast`` repeats a run on parts of its images, and fits a ``learning_curve``.
"""
