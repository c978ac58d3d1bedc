"""``convit bench``: the table, the JSON document, the picture; what it refuses before it measures anything."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import convit
from convit.benchmark.cases import PRESETS
from convit.benchmark.report import Measured, Result
from convit.cli import bench
from tests.cli.command import Shell
from tests.helpers import needs_export

FAST = ("convit_micro_patch4_32", "--image-size", "8", "--batch-size", "2", "--rounds", "2")
MODEL = "convit_micro_patch4_32"


@pytest.fixture(autouse=True)
def _same_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_table(shell: Shell) -> None:
    got = shell("bench", *FAST, "--threads", 1)
    assert got.status == 0
    lines = got.out.splitlines()
    assert " 1 threads, " in lines[0]
    assert "torch " in lines[1]
    titles = [line for line in lines if line.startswith(MODEL)]
    assert titles == [f"{MODEL}, 8 px, batch 2, {step}, fp32, eager; 2 rounds" for step in ("forward", "training step")]
    assert [line.split("  ")[1] for line in lines if line.startswith("  ") and "[" in line] == 2 * [
        "convit",
        "plain twin",
    ]
    assert got.err.splitlines() == [
        f"{number} of 2: {title.removesuffix('; 2 rounds')}" for number, title in enumerate(titles, 1)
    ]


def test_json_alone_on_standard_output(shell: Shell) -> None:
    got = shell("bench", *FAST, "--mode", "forward", "--precision", "fp32", "bf16", "--against", "twin", "--json")
    document = json.loads(got.out)
    assert [case["case"]["precision"] for case in document["cases"]] == ["fp32", "bf16"]
    assert all(len(result["seconds"]) == 2 for case in document["cases"] for result in case["results"])


def test_file(shell: Shell, tmp_path: Path) -> None:
    sizes = ("--image-size", "8", "16", "--mode", "forward", "--against")
    got = shell("bench", *FAST, *sizes, "--json", tmp_path / "x.json")
    assert got.status == 0
    assert "plain twin" not in got.out
    assert [case["case"]["image_size"] for case in json.loads((tmp_path / "x.json").read_text())["cases"]] == [8, 16]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of a process is reset by Linux alone")
def test_memory(shell: Shell) -> None:
    got = shell("bench", *FAST, "--mode", "train", "--memory")
    head, *rows = [line.split() for line in got.out.splitlines() if line.startswith("  ")]
    assert head[-4:] == ["peak", "MB", "/", "twin"]
    assert [row[-1] for row in rows[1:]] == ["1.00"]
    assert float(rows[0][-1]) == pytest.approx(1, abs=0.3)


def test_preset(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cases and the device of the preset, as they are given to be measured."""
    given: dict[str, Any] = {}

    def fake(cases: Any, **options: Any) -> tuple[Measured, ...]:
        given.update(options, cases=cases)
        return tuple(Measured(case=case, results=(Result(who="convit", error="not today"),)) for case in cases)

    monkeypatch.setattr(bench, "measure", fake)
    monkeypatch.setattr(bench, "check_memory_is_measurable", lambda _: None)
    got = shell("bench", "--preset", "paper")
    assert got.out.count("not today") == 7
    assert given["cases"] == PRESETS["paper"].cases
    assert given["device"] == torch.device("cpu")
    assert (given["rounds"], given["exported"]) == (None, None)
    shell("bench", "--preset", "cpu", "--memory")
    assert all(case.memory for case in given["cases"])


@needs_export
def test_exported_file(exported: Path, trained: Path, shell: Shell) -> None:
    got = shell("bench", "--onnx", exported, "--rounds", 2, "--batch-size", 2, 3, "--threads", 1, "--json")
    cases = json.loads(got.out)["cases"]
    assert [(c["case"]["image_size"], c["case"]["num_classes"], c["case"]["patch"]) for c in cases] == 4 * [(8, 3, 4)]
    assert cases[0]["case"]["model_args"] == convit.load(trained).model_args
    people = [[result["who"] for result in case["results"]] for case in cases]
    assert people == 2 * [["convit", "twin", "onnx"], ["convit", "twin"]]
    assert len(cases[0]["results"][2]["seconds"]) == 2
    shell.refuses("bench", "--onnx", exported, "--image-size", 16, says=("8 x 8", "got 16 x 16", "--dynamic-size"))
    shell.refuses("bench", "convit_tiny_patch4_32", "--onnx", exported, says=(MODEL, "convit_tiny_patch4_32"))
    shell.refuses("bench", "--onnx", exported, "--mode", "train", says=("onnx", "--mode forward"))
    shell.refuses("bench", "--onnx", exported, "--device", "cuda", says=("device: got cuda", "expected cpu"))


@needs_export
def test_exported_file_of_any_size(trained: Path, tmp_path: Path, shell: Shell) -> None:
    file = tmp_path / "any.onnx"
    assert shell("export", trained, "--out", file, "--dynamic-size").status == 0
    got = shell("bench", "--onnx", file, "--image-size", 8, 16, "--mode", "forward", "--rounds", 1, "--batch-size", 1)
    assert got.out.count("exported file") == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (f"{MODEL} --image-size 10", ("image-size: got 10 x 10", "8 x 8 or 12 x 12")),
        (f"{MODEL} --image-size big", ("image-size", "big")),
        (f"{MODEL} --batch-size 0", ("batch-size: got 0",)),
        (f"{MODEL} --precision fp8", ("precision", "fp8", "bf16")),
        (f"{MODEL} --mode sideways", ("mode", "sideways", "forward")),
        (f"{MODEL} --against resnet", ("against", "resnet", "twin")),
        ("--rounds 0", ("rounds: got 0, expected a whole number of at least 1",)),
        ("--threads 0", ("threads: got 0, expected a whole number from 1 to 1024",)),
        ("--preset papers", ("preset", "papers", "paper")),
        ("--preset paper --image-size 224", ("preset: got it with image-size",)),
        ("--json=x.txt", ("json: got x.txt", ".json")),
        ("--thread 2", ("unknown option 'thread'; did you mean 'threads'?",)),
        pytest.param(
            "--preset cuda",
            ("device: got 'cuda'",),
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_bad_input(arguments: str, says: tuple[str, ...], shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "measure", None)  # nothing may be measured before
    shell.refuses("bench", *arguments.split(), says=says)
