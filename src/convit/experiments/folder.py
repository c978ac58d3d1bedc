"""An experiment's folder: what it is of, the runs, the results."""

import importlib.metadata
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from convit.errors import InputError
from convit.experiments.results import Cell, Result
from convit.files import fingerprint_of_files, parse_json, read, write, write_csv, write_json
from convit.lock import FILE as LOCK
from convit.lock import locked
from convit.options_file import read_yaml, to_yaml
from convit.training.run_folder import RunFolder, first_difference

IDENTITY = "experiment.json"
OWN = (
    IDENTITY,
    "results.json",
    "results.csv",
    "table.md",
    "log.txt",
    "speed.json",
    "costs.json",
    "*.png",
    "runs",
    "configs",
)
"""Everything that an experiment writes into its folder."""
WAIT = 60.0
"""Seconds to wait for the runs of an earlier call, which may be saving their states."""
NOT_RESULTS = ("workers", "data_root")
"""Options on which no result depends."""


class ExperimentFolder:
    """The folder of one experiment.

    ``experiment.json`` says which code, data and settings its results are of; ``configs/`` has the options of each
    cell, ``runs/`` its run folder; ``results.json`` and ``results.csv`` have every result with its run's options;
    ``table.md`` and the pictures are made of them; ``log.txt`` has what the processes of the runs said.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, cell: Cell) -> Path:
        """The run folder of a cell."""
        return self.path / "runs" / cell.name

    def _config(self, cell: Cell) -> Path:
        return self.path / "configs" / f"{cell.name}.yaml"

    def locked(self) -> AbstractContextManager[int]:
        """Nobody else works in the folder meanwhile; gives the open lock, which the processes of runs keep too.

        Raises:
            InputError: somebody else does.
        """
        return locked(self.path, "makes an experiment", wait=WAIT)

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
            try:
                found = first_difference(parse_json(read(file)), json.loads(json.dumps(identity)))
                if found and isinstance(found[2], dict):
                    name, *values = first_difference(found[1], found[2]) or ("", "", "")
                    found = (f"{found[0]} {name}", *values)
            except (ValueError, TypeError, AttributeError) as error:
                raise InputError(f"{file}: not readable ({error}); expected --overwrite, or another --out") from error
            if found:
                raise InputError(
                    f"{self.path}: {_said(*found)}; results of the two do not belong in "
                    "one table; expected another --out, or --overwrite to start again"
                )
            return
        elif self.path.exists() and any(entry.name != LOCK for entry in self.path.iterdir()):
            raise InputError(f"{self.path}: exists and is no experiment; expected another --out")
        for name in ("runs", "configs"):
            (self.path / name).mkdir(parents=True, exist_ok=True)
        write_json(file, identity)

    def has(self, cell: Cell) -> bool:
        """Whether the run of a cell is complete: evaluated, the last of a run, and without its state.

        Raises:
            InputError: the run that is there is of other options.
        """
        run, config = self.run(cell), self._config(cell)
        if RunFolder(run).is_run:
            before = read_yaml(config) if config.is_file() else {}
            decisive = [name for name in cell.asked.to_dict() if name not in NOT_RESULTS]
            then, now = ({name: of.get(name) for name in decisive} for of in (before, cell.asked.to_dict()))
            if found := first_difference(then, now):
                raise InputError(f"{run}: {_said(*found)}; expected the same; delete it to make that run again")
        return (run / "evaluation.json").is_file() and not (run / "checkpoints").exists()

    def write_config(self, cell: Cell) -> Path:
        """Writes the options of a cell, as ``convit train --config`` takes them."""
        write(self._config(cell), to_yaml(cell.asked))
        return self._config(cell)

    def write_results(self, identity: Mapping[str, Any], results: Sequence[Result]) -> None:
        """Writes ``results.json``, and ``results.csv`` with columns ``label.variant``, ``top1``, ``config.lr``, ..."""
        write_json(self.path / "results.json", {**identity, "results": [result.to_dict() for result in results]})
        rows = [_row(result.to_dict()) for result in results]
        columns = list(dict.fromkeys(column for row in rows for column in row))
        write_csv(self.path / "results.csv", [columns, *([row.get(column, "") for column in columns] for row in rows)])


def _said(name: str, then: Any, now: Any) -> str:
    """A difference in words; 10 epochs are 10, also where parts of one are allowed."""
    was, got = (f"{value:g}" if isinstance(value, float) else value for value in (then, now))
    return f"its {name} is {was}, got {got}"


def _row(result: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for key, value in result.items():
        nested = isinstance(value, Mapping)
        row |= {f"{key.removesuffix('s')}.{name}": one for name, one in value.items()} if nested else {key: value}
    return row


def code_identity() -> dict[str, str]:
    """Versions of the libraries that results depend on, and a fingerprint of this package's source."""
    versions = {name: importlib.metadata.version(name) for name in ("convit", "torch", "torchvision", "timm")}
    return versions | {"source": fingerprint_of_files(*sorted(Path(__file__).parents[1].rglob("*.py")))}
