"""An experiment's folder: what it is of, the runs, the results."""

import csv
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from convit.errors import InputError
from convit.experiments.cells import RESULT, Cell, Result, read_result
from convit.experiments.identity import first_difference
from convit.lock import FILE as LOCK
from convit.lock import locked

IDENTITY = "experiment.json"
OWN = (IDENTITY, "results.json", "results.csv", "table.md", "log.txt", "speed.json", "*.png", "runs")
"""Everything that an experiment writes into its folder."""
WAIT = 60.0
"""Seconds to wait for the runs of an earlier call, which may be saving their states."""


class ExperimentFolder:
    """The folder of one experiment.

    ``experiment.json`` says which code, data and settings its results are of; ``runs/`` has a run folder for each
    cell; ``results.json`` and ``results.csv`` have every result with its run's options; ``table.md`` and the pictures
    are made of them; ``log.txt`` has what the runs said.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs = path / "runs"

    def prepare(self, identity: Mapping[str, Any], *, overwrite: bool) -> None:
        """Makes the folder, or looks whether it is of the same experiment.

        Raises:
            InputError: it is of another code, data or settings; or exists and is no experiment.
        """
        file = self.path / IDENTITY
        if file.is_file() and overwrite:
            for pattern in OWN:
                for entry in self.path.glob(pattern):
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        elif file.is_file():
            other = first_difference(self._read(file), json.loads(json.dumps(identity)))
            if other:
                raise InputError(
                    f"{self.path}: its {other}; results of the two do not belong in one table; expected another --out, "
                    "or --overwrite to start again"
                )
            return
        elif self.path.exists() and any(entry.name != LOCK for entry in self.path.iterdir()):
            raise InputError(f"{self.path}: exists and is no experiment; expected another --out")
        self.path.mkdir(parents=True, exist_ok=True)
        self.write(IDENTITY, json.dumps(identity, indent=1) + "\n")

    @staticmethod
    def _read(file: Path) -> dict[str, Any]:
        try:
            return dict(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise InputError(f"{file}: not readable ({error}); expected --overwrite, or another --out") from error

    def locked(self) -> AbstractContextManager[int]:
        """Nobody else works in the folder meanwhile; gives the open lock, which the workers keep too.

        Raises:
            InputError: somebody else does.
        """
        return locked(self.path, "makes an experiment", wait=WAIT)

    def done(self, cell: Cell) -> Result | None:
        """The result of a cell, if it is complete.

        Raises:
            InputError: it is of other options.
        """
        run = self.runs / cell.name
        if not (run / RESULT).is_file():
            return None
        result = read_result(run)
        if other := first_difference(result.asked, cell.to_dict()):
            raise InputError(f"{run}: its {other}; expected the same; delete it to make that run again")
        return result

    def write_results(self, identity: Mapping[str, Any], results: Sequence[Result]) -> None:
        """Writes ``results.json`` and ``results.csv``."""
        document = {**identity, "results": [result.to_dict() for result in results]}
        self.write("results.json", json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        rows = [as_row(result) for result in results]
        columns = list(dict.fromkeys(column for row in rows for column in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
        self.write("results.csv", text.getvalue())

    def write(self, name: str, text: str) -> None:
        """Writes a file whole or not at all."""
        temporary = self.path / f".{name}.tmp"
        temporary.write_text(text, encoding="utf-8", newline="")
        temporary.replace(self.path / name)


def as_row(result: Result) -> dict[str, Any]:
    """A result as a row of a table of plain columns: ``label.variant``, ``top1``, ``config.optim.lr``, ..."""
    values = result.to_dict()
    labels, measured, config = values.pop("labels"), values.pop("measured"), values.pop("config")
    del values["asked"]
    first = {"name": values.pop("name")} | flat("label", labels)
    return first | values | flat("measured", measured) | flat("config", config)


def flat(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings as one.

    >>> flat("config", {"optim": {"lr": 0.1}, "data": "digits"})
    {'config.optim.lr': 0.1, 'config.data': 'digits'}
    """
    out: dict[str, Any] = {}
    for key, value in values.items():
        out |= flat(f"{prefix}.{key}", value) if isinstance(value, Mapping) else {f"{prefix}.{key}": value}
    return out
