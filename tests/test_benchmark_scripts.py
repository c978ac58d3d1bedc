"""The scripts in ``benchmarks/`` that make and draw results."""

import csv
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.cli.command import photos

FOLDER = Path(__file__).parent.parent / "benchmarks"


def script(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    return module


def results(path: Path, **more: str) -> Path:
    """A study of ConViT and its twin with two seeds."""
    rows = [
        {"label.model": "m", "label.variant": variant, "label.fraction": "1.0", "seed": seed, "split": "test"}
        | {"epochs": "1", "seconds": "60", "top1": top1}
        | more
        for variant, top1 in (("convit", "50"), ("twin", "40"))
        for seed in ("0", "1")
    ]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_resnet18_beside_a_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = photos(tmp_path / "data", {"dark": 8, "light": 8})
    script("resnet18", monkeypatch, data, "--epochs", 1, "--batch-size", 4, "--val-fraction", 0.25).main()
    line = capsys.readouterr().out.splitlines()[-1]
    run = json.loads(line)
    assert (run["model"], run["fraction"], run["epochs"]) == ("resnet18", 1.0, 1)
    assert run["parameters"] == 11_169_858  # 11.17 million: torchvision's, with 2 classes and a first kernel of 3 x 3
    lines = tmp_path / "resnet18.jsonl"
    lines.write_text(line + "\n")

    study, picture = results(tmp_path / "results.csv"), tmp_path / "cost.png"
    cost = script("cost", monkeypatch, study, lines, "--out", picture)
    cost.main()
    assert picture.read_bytes().startswith(b"\x89PNG")
    runs = cost.read([study, lines])
    assert runs["convit", 1.0, 1] == [(1.0, 50.0), (1.0, 50.0)]
    assert set(runs) == {("convit", 1.0, 1), ("twin", 1.0, 1), ("resnet18", 1.0, 1)}


def test_cost_refuses_what_does_not_belong_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = results(tmp_path / "results.csv")
    for more, says in (({"split": "val"}, "of val images, expected test"), ({"label.model": "n"}, "got runs of m, n")):
        with pytest.raises(SystemExit, match=says):
            script("cost", monkeypatch).read([study, results(tmp_path / "other.csv", **more)])
