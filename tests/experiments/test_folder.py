"""What an experiment's folder keeps, and what it refuses to mix."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from convit.data import ArrayImages, DataSource, open_folder
from convit.errors import InputError
from convit.experiments import folder as module
from convit.experiments import run as run_module
from convit.experiments.cells import RESULT
from convit.experiments.folder import ExperimentFolder
from convit.experiments.identity import code_identity, data_identity, first_difference
from convit.experiments.settings import Settings
from convit.experiments.variants import VARIANTS
from tests.cli.command import photos
from tests.experiments.made import made

IDENTITY: dict[str, Any] = {
    "experiment": "ablation",
    "code": {"source": "ab"},
    "settings": {"epochs": 10, "size": (8,)},
}


def test_same_identity_goes_on(tmp_path: Path) -> None:
    folder = ExperimentFolder(tmp_path / "x")
    folder.prepare(IDENTITY, overwrite=False)
    (folder.runs / "a").mkdir(parents=True)
    folder.prepare(IDENTITY, overwrite=False)
    assert (folder.runs / "a").is_dir()


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("experiment", "models", "its experiment is ablation, got models"),
        ("code", {"source": "cd"}, "its code.source is ab, got cd"),
        ("settings", {"epochs": 12, "size": (8,)}, "its settings.epochs is 10, got 12"),
    ],
)
def test_refuses_to_mix(key: str, value: Any, says: str, tmp_path: Path) -> None:
    folder = ExperimentFolder(tmp_path / "x")
    folder.prepare(IDENTITY, overwrite=False)
    with pytest.raises(InputError, match=says) as error:
        folder.prepare({**IDENTITY, key: value}, overwrite=False)
    assert "--overwrite" in str(error.value)


def test_overwrite_leaves_what_is_not_ours(tmp_path: Path) -> None:
    folder = ExperimentFolder(tmp_path / "x")
    folder.prepare(IDENTITY, overwrite=False)
    (folder.runs / "a").mkdir(parents=True)
    (folder.path / "notes.txt").write_text("mine")
    folder.prepare({**IDENTITY, "experiment": "models"}, overwrite=True)
    assert sorted(entry.name for entry in folder.path.iterdir()) == ["experiment.json", "notes.txt"]
    assert json.loads((folder.path / "experiment.json").read_text())["experiment"] == "models"


def test_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    for overwrite in (False, True):
        with pytest.raises(InputError, match="exists and is no experiment"):
            ExperimentFolder(tmp_path).prepare(IDENTITY, overwrite=overwrite)
    assert [entry.name for entry in tmp_path.iterdir()] == ["holiday.jpg"]


def test_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT", 0.3)
    folder = ExperimentFolder(tmp_path / "x")
    with (
        folder.locked(),
        pytest.raises(InputError, match=r"another process .* makes an experiment in"),
        ExperimentFolder(tmp_path / "x").locked(),
    ):
        pass
    with folder.locked():
        pass


def test_result_of_other_options_is_refused(tmp_path: Path) -> None:
    folder = ExperimentFolder(tmp_path)
    settings = Settings(data="digits", models=("m",), epochs=3)
    cell = settings.cell("m", "convit", VARIANTS["convit"], 0)
    assert folder.done(cell) is None
    run = folder.runs / cell.name
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text('{"epoch": 1}\n')
    values = {**made("convit", 0, 50.0).to_dict(), "asked": cell.to_dict()}
    (run / RESULT).write_text(json.dumps(values))
    result = folder.done(cell)
    assert result is not None
    assert result.history == ({"epoch": 1},)
    other = Settings(data="digits", models=("m",), epochs=4).cell("m", "convit", VARIANTS["convit"], 0)
    with pytest.raises(InputError, match=r"its config\.optim\.epochs is 3, got 4"):
        folder.done(other)
    (run / RESULT).write_text("{")
    with pytest.raises(InputError, match=r"result\.json: not readable"):
        folder.done(cell)


def test_results_as_json_and_csv(tmp_path: Path) -> None:
    folder = ExperimentFolder(tmp_path)
    results = [made("convit", 0, 90.5), made("twin", 1, 80.0, labels={"layers": 2}, measured={"no content in 1": 7.0})]
    folder.write_results(IDENTITY, results)
    document = json.loads((tmp_path / "results.json").read_text())
    assert [document[key] for key in ("experiment", "code")] == ["ablation", {"source": "ab"}]
    first = document["results"][0]
    assert first["config"] == {"data": "d", "optim": {"lr": 0.1}, "run": {"seed": 0}}
    assert (first["top1"], first["val_top1"], first["part"], first["labels"]["variant"]) == (
        90.5,
        89.5,
        "test",
        "convit",
    )
    with (tmp_path / "results.csv").open(newline="") as stream:
        one, two = csv.DictReader(stream)
    assert (one["label.variant"], one["seed"], one["top1"], one["config.optim.lr"]) == ("convit", "0", "90.5", "0.1")
    assert (one["label.layers"], two["label.layers"]) == ("", "2")
    assert (one["measured.no content in 1"], two["measured.no content in 1"]) == ("", "7.0")


def test_difference_of_identities() -> None:
    assert first_difference(IDENTITY, IDENTITY) is None
    assert first_difference({"a": 1}, {"a": 1, "b": None}) is None  # an option that is newer, and open
    assert first_difference({"a": 1}, {"a": 1, "b": 2}) == "b is None, got 2"


def test_code_identity_is_of_every_module() -> None:
    assert code_identity() == code_identity()
    assert {"convit", "torch", "timm", "source"} <= code_identity().keys()


def test_data_identity(tmp_path: Path) -> None:
    root = photos(tmp_path / "pets", {"cat": 2, "dog": 2})
    before = data_identity(open_folder(root))
    assert before["images"] == {"whole": 4}
    assert data_identity(open_folder(root)) == before
    (root / "cat/0.png").write_bytes((root / "cat/0.png").read_bytes() + b"\0")
    changed = data_identity(open_folder(root))
    assert changed["digest"] != before["digest"]
    shutil.move(root / "cat/1.png", root / "dog/9.png")
    assert data_identity(open_folder(root))["digest"] not in (before["digest"], changed["digest"])


def test_data_identity_of_pixels() -> None:
    def of(value: int, target: int) -> str:
        images = ArrayImages(np.full((2, 4, 4), value, np.uint8), ["a", "b"], [0, target], ["x", "y"])
        source = DataSource(name="s", root="s", class_names=("x", "y"), parts={"train": images})
        return str(data_identity(source)["digest"])

    assert len({of(0, 0), of(0, 1), of(1, 0)}) == 3


def test_skip_bad_is_of_files_that_are_missing_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos(tmp_path / "pets", {"cat": 2, "dog": 2})
    names = [f"{kind}/{i}.png" for kind in ("cat", "dog") for i in range(2)]
    rows = "".join(f"{name},{name[:3]}\n" for name in (*names, "dog/gone.png"))
    (tmp_path / "pets/list.csv").write_text(f"path,label\n{rows}")
    given = {"skip_bad": True, "models": ("convit_micro_patch4_32",), "seeds": (0,)}
    settings = run_module.settle("sample-efficiency", str(tmp_path / "pets/list.csv"), given)
    monkeypatch.setattr(run_module, "run_cells", lambda cells, *_, **__: {cells[0].name: "no reason"})
    with pytest.raises(InputError, match="runs failed, so there is no table"):
        run_module.run_experiment("sample-efficiency", settings, tmp_path / "x", listener=Mock())
    assert json.loads((tmp_path / "x/experiment.json").read_text())["data"]["images"] == {"whole": 5}
