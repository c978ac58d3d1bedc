"""The example notebook runs as it is written, and was saved with its results."""

import json
import re
from pathlib import Path

import pytest

import convit
from tests.experiments.made import save_classifier

ROOT = Path(__file__).parent.parent
CELLS = json.loads((ROOT / "examples" / "inspect_digits.ipynb").read_text(encoding="utf-8"))["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]


def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    # A model that has learned nothing stands in for the run of the demo.
    run = tmp_path / "runs" / "digits"
    save_classifier(run, [str(digit) for digit in range(10)])
    (run / "test-images").mkdir()
    convit.load(run)
    from convit.data import open_source

    open_source("digits").splits["test"].read(0).save(run / "test-images" / "a-3.png")
    (tmp_path / "examples").mkdir()
    monkeypatch.chdir(tmp_path / "examples")
    names_there: dict[str, object] = {}
    for number, cell in enumerate(CODE, start=1):
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names_there)
    assert "without content" in capsys.readouterr().out


def test_it_was_saved_with_its_results() -> None:
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    outputs = [output for cell in CODE for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    shown = [kind for output in outputs for kind in output.get("data", {})]
    assert "text/html" in shown
    assert shown.count("image/png") >= 2


def test_it_tells_nothing_of_the_machine_that_ran_it() -> None:
    outputs = [output for cell in CODE for output in cell["outputs"]]
    said = [line for o in outputs for line in (*o.get("text", ()), *o.get("data", {}).get("text/plain", ()))]
    paths = [line for line in said if re.search(r"(^|[\s'\"(=])/\w", line)]
    assert said
    assert not paths
