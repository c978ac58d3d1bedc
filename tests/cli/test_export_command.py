"""``convit export``, and ``convit predict`` of what it wrote."""

import csv
import json
import sys
from pathlib import Path

import pytest

from tests.cli.command import Shell, tree
from tests.helpers import needs_export


@needs_export
def test_onnx(run: Path, animals: Path, shell: Shell) -> None:
    before = set(tree(run))
    got = shell("export", run, "--data", animals)
    assert (got.status, got.err) == (0, "")
    assert set(tree(run)) - before == {"model.onnx"}
    first, second, third = got.out.splitlines()
    assert first.startswith(f"{run / 'model.onnx'}: ")
    assert "float32 weights, 3 classes; takes batches of any size, 8 x 8 pixels" in first
    assert second.startswith("largest difference from PyTorch: ")
    assert float(second.split()[4]) < 1e-5
    assert third.startswith("top-1 on animals, val images (")
    of_pytorch, of_file = third.split("PyTorch ")[1].split(", this file ")
    assert of_pytorch == of_file
    line = shell.refuses("export", run, says=(run / "model.onnx", "exists", "--overwrite"))
    assert len(line) < 200
    assert shell("export", run, "--overwrite", "--dynamic-size").status == 0


@needs_export
def test_int8(run: Path, animals: Path, shell: Shell) -> None:
    got = shell("export", run, "--int8", "--data", animals)
    assert (got.status, got.err) == (0, "")
    assert "int8 weights" in got.out.splitlines()[0]
    assert 0 < float(got.out.splitlines()[2].removeprefix("  with int8 weights: ")) < 0.1
    assert "PyTorch" in got.out.splitlines()[3]
    assert (run / "model-int8.onnx").stat().st_size < 0.4 * (run / "model.safetensors").stat().st_size


def test_torch(run: Path, animals: Path, tmp_path: Path, shell: Shell) -> None:
    got = shell("export", run, "--format", "torch", "--data", animals, "--out", tmp_path / "x.pt2", "--dynamic-size")
    assert (got.status, got.err) == (0, "")
    assert got.out.startswith(f"{tmp_path / 'x.pt2'}: ")
    assert "any size in multiples of 4 pixels" in got.out
    assert "top-1 on animals" in got.out.splitlines()[2]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("RUN --out RUN/x.pt2", ("x.pt2: got a name that ends in '.pt2', expected '.onnx'",)),
        ("RUN --format torch --out x.onnx", ("x.onnx", "expected '.pt2'")),
        ("RUN --format torch --int8", ("format: got torch with --int8, expected --format onnx",)),
        ("RUN --format tflite", ("format: got tflite, expected onnx, torch, web or space",)),
        ("RUN --opset 5", ("opset: got 5, expected 18 or later",)),
        ("RUN --datas x", ("unknown option 'datas'; did you mean 'data'?",)),
    ],
)
def test_bad_input(arguments: str, says: tuple[str, ...], run: Path, shell: Shell) -> None:
    before = tree(run)
    shell.refuses("export", *(word.replace("RUN", str(run)) for word in arguments.split()), says=says)
    assert tree(run) == before


def test_without_the_extra(run: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    before = tree(run)
    shell.refuses("export", run, says=("onnxruntime not installed", 'pip install "convit[export]"'))
    (run / "x.onnx").write_bytes(b"x")
    shell.refuses("predict", run / "x.onnx", run, says=("onnxruntime is not installed", 'pip install "convit[export]"'))
    (run / "x.onnx").unlink()
    assert tree(run) == before


# -- convit predict model.onnx -----------------------------------------------------------------------------------------


@needs_export
@pytest.mark.parametrize("options", [(), ("--top-k", 2), ("--top-k=1",), ("--json",), ("--json", "--top-k", 99)])
def test_predict_has_the_form_of_a_run(
    options: tuple[object, ...], exported: Path, trained: Path, album: Path, shell: Shell
) -> None:
    given = (album / "b", album / "a/0.png", *options)
    expected, got = shell("predict", trained, *given), shell("predict", exported, *given)
    assert (got.status, got.err) == (0, "")
    if "--json" not in options:
        assert got.out == expected.out
        return
    for found, wanted in zip(json.loads(got.out), json.loads(expected.out), strict=True):
        assert found["image"] == wanted["image"]
        assert [p["class"] for p in found["predictions"]] == [p["class"] for p in wanted["predictions"]]
        values = [p["probability"] for p in wanted["predictions"]]
        assert [p["probability"] for p in found["predictions"]] == pytest.approx(values, abs=1e-6)


@needs_export
def test_predict_files(exported: Path, trained: Path, album: Path, tmp_path: Path, shell: Shell) -> None:
    for name, model in (("onnx", exported), ("run", trained)):
        targets = ("--csv", tmp_path / f"{name}.csv", "--json", tmp_path / f"{name}.json")
        assert shell("predict", *targets, model, album).status == 0
    rows = [list(csv.reader((tmp_path / f"{name}.csv").open())) for name in ("onnx", "run")]
    assert [row[:3] for row in rows[0]] == [row[:3] for row in rows[1]]
    assert (tmp_path / "onnx.csv").read_bytes().count(b"\r\n") == 13
    documents = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("onnx", "run")]
    assert [entry["image"] for entry in documents[0]] == [entry["image"] for entry in documents[1]]


@needs_export
def test_predict_bad_pictures(exported: Path, trained: Path, album: Path, shell: Shell) -> None:
    bad = album / "a/0.jpg"
    bad.write_text("no picture")
    got, expected = (shell("predict", model, album, "--skip-bad") for model in (exported, trained))
    assert got == expected
    assert got.status == 0
    assert bad.name in got.err


@needs_export
def test_predict_runs_a_file_on_the_cpu(exported: Path, album: Path, shell: Shell) -> None:
    shell.refuses("predict", exported, album, "--device", "cuda", says=("device: got 'cuda', expected cpu",))


def test_a_folder_that_ends_in_onnx_is_a_run(run: Path, album: Path, shell: Shell) -> None:
    assert shell("predict", run.rename(run.with_name("x.onnx")), album).status == 0


def test_web(run: Path, shell: Shell, tmp_path: Path) -> None:
    got = shell("export", run, "--format", "web")
    assert (got.status, got.err) == (0, "")
    page = run / "model.html"
    assert got.out.startswith(f"{page}: ")
    assert page.read_text("utf-8").startswith("<!doctype html>")
    assert "weights, 3 classes, 8 x 8 pixels" in got.out
    shell.refuses("export", run, "--format", "web", says=(page, "exists", "--overwrite"))
    assert shell("export", run, "--format", "web", "--out", tmp_path / "other.html").status == 0
    assert (tmp_path / "other.html").read_bytes() == page.read_bytes()


@pytest.mark.parametrize("option", [("--int8",), ("--opset", "19"), ("--dynamic-size",), ("--data", "digits")])
def test_a_web_page_has_none_of_the_other_formats_options(run: Path, shell: Shell, option: tuple[str, ...]) -> None:
    shell.refuses("export", run, "--format", "web", *option, says=("format", "web", option[0], "--format onnx"))
    assert not (run / "model.html").exists()
