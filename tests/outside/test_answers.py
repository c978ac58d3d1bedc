"""Answers: of the pictures that can be read while others cannot, of a batch, of few classes."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import convit
from tests.cli.command import SMALL, Shell, photos


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Two pictures, and two files that are none."""
    album = photos(tmp_path / "album", {"a": 2})
    (album / "a/bad.jpg").write_text("no picture")
    (album / "a/empty.png").touch()
    return album


# -- some pictures cannot be read --------------------------------------------------------------------------------------


def test_predict_goes_on(trained: Path, album: Path, tmp_path: Path, shell: Shell) -> None:
    csv_file, json_file = tmp_path / "x.csv", tmp_path / "x.json"
    got = shell("predict", trained, album, "--csv", csv_file, "--json", json_file, "--top-k", 2)
    assert got.status == 1
    assert got.err.splitlines()[-1].startswith("convit predict: 2 of 4 pictures")
    assert "Traceback" not in got.err
    assert [line.split()[0] for line in got.out.splitlines()] == [str(album / f"a/{i}.png") for i in range(2)]
    with csv_file.open() as stream:
        head, *rows = csv.reader(stream)
    assert head == ["image", "rank", "class", "probability", "reason"]
    found = [(Path(row[0]).name, row[1], bool(row[2]), "not an image" in row[4] or "0 bytes" in row[4]) for row in rows]
    assert found == [
        ("0.png", "1", True, False),
        ("0.png", "2", True, False),
        ("1.png", "1", True, False),
        ("1.png", "2", True, False),
        ("bad.jpg", "", False, True),
        ("empty.png", "", False, True),
    ]
    document = json.loads(json_file.read_text())
    assert [(len(entry["predictions"]), "reason" in entry) for entry in document] == [(2, False)] * 2 + [(0, True)] * 2


def test_predict_leaves_out_what_it_is_told_to(trained: Path, album: Path, shell: Shell) -> None:
    got = shell("predict", trained, album, "--skip-bad", "--json")
    assert got.status == 0
    assert [Path(entry["image"]).name for entry in json.loads(got.out)] == ["0.png", "1.png"]
    assert [line.split(": ")[0] for line in got.err.splitlines()] == ["left out"] * 2


def test_files_that_are_no_images_by_name_are_said(trained: Path, tmp_path: Path, shell: Shell) -> None:
    """An image under an odd name is left out; every command that opens a folder says so."""
    data = photos(tmp_path / "data", {"ape": 4, "bee": 4, "cow": 4})
    for name in ("ape/1.jpg_large", "bee/1.mpo"):
        shutil.copy(data / "ape/0.png", data / name)
    said = "ignored 2 files that are no images by name, such as "
    for words in (
        ("train", data, "--dry-run", "--out", tmp_path / "new", *SMALL),
        ("evaluate", trained, data, "--out", tmp_path / "evaluation"),
        ("predict", trained, data),
        ("inspect", trained, data / "ape/0.png", "--data", data, "--out", tmp_path / "a", "--skip-masking"),
        ("inspect", trained, data, "--out", tmp_path / "b", "--skip-masking"),
    ):
        got = shell(*words)
        assert got.status == 0, got.err
        assert said in got.out + got.err, words
        assert "ape/1.jpg_large" in got.out + got.err


def test_pictures_given_twice_are_said(trained: Path, tmp_path: Path, shell: Shell) -> None:
    data = photos(tmp_path / "data", {"ape": 2, "bee": 1})
    got = shell("predict", trained, data, data / "ape", "--json")
    assert (got.status, len(json.loads(got.out))) == (0, 5)
    assert got.err == f"2 pictures are given more than once, such as {data / 'ape/0.png'}\n"
    assert shell("predict", trained, data, "--json").err == ""
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.txt").touch()
    shell.refuses("predict", trained, tmp_path / "notes", says=("no picture in it", "a.txt"))


def test_predict_of_bad_pictures_alone(trained: Path, album: Path, shell: Shell) -> None:
    got = shell("predict", trained, album / "a/bad.jpg", "--json")
    assert got.status == 1
    assert json.loads(got.out)[0]["predictions"] == []
    assert shell("predict", trained, album / "a/bad.jpg", "--skip-bad").status == 0


def test_evaluate_goes_on(run: Path, animals: Path, tmp_path: Path, shell: Shell) -> None:
    data = Path(shutil.copytree(animals, tmp_path / "data"))
    clean = json.loads(shell("evaluate", run, data, "--json").out)
    assert "left_out" not in clean
    (data / "cow/bad.jpg").write_bytes(b"")
    out = tmp_path / "out"
    got = shell("evaluate", run, data, "--out", out, "--json")
    found = json.loads(got.out)
    assert got.status == 1
    assert [found[key] for key in ("images", "top1", "confusion")] == [
        clean[key] for key in ("images", "top1", "confusion")
    ]
    assert [entry["image"] for entry in found["left_out"]] == ["cow/bad.jpg"]
    assert "0 bytes" in found["left_out"][0]["reason"]
    assert "left out: cow/bad.jpg" in got.err
    assert got.err.splitlines()[-1].startswith("convit evaluate: 1 of 19 images")
    assert (out / "left-out.csv").read_text().splitlines()[1].startswith("cow/bad.jpg,")
    assert json.loads((out / "evaluation.json").read_text())["left_out"] == found["left_out"]
    skipped = shell("evaluate", run, data, "--out", out, "--json", "--skip-bad")
    assert skipped.status == 0
    assert json.loads(skipped.out) == found
    (data / "cow/bad.jpg").unlink()
    assert shell("evaluate", run, data, "--out", out).status == 0
    assert not (out / "left-out.csv").exists()


def test_evaluate_a_list_with_missing_files(run: Path, animals: Path, tmp_path: Path, shell: Shell) -> None:
    table = tmp_path / "list.csv"
    table.write_text(f"path,label\n{animals}/ape/0.png,ape\n{animals}/gone.png,cow\n")
    got = shell("evaluate", run, table, "--json")
    assert got.status == 1
    assert json.loads(got.out)["images"] == 1
    table.write_text(f"path,label\n{animals}/gone.png,cow\n")
    shell.refuses("evaluate", run, table, says=("no image that decodes", "gone.png"))


# -- top-5 of five classes or fewer ------------------------------------------------------------------------------------


def test_what_is_told_of_few_classes_and_of_six(run: Path, animals: Path, tmp_path: Path, shell: Shell) -> None:
    """Of five classes or fewer the class is always among the first five."""
    got = shell("evaluate", run, animals, "--json", tmp_path / "x.json", "--out", tmp_path / "out")
    written = [path.read_text() for path in (tmp_path / "x.json", tmp_path / "out/evaluation.json")]
    written += [(run / name).read_text() for name in ("evaluation.json", "metrics.jsonl", "log.txt", "config.json")]
    classifier = convit.load(run)
    for text in (got.out, *written, classifier.card()):
        assert "top5" not in text.replace("top-5", "top5").replace("top_5", "top5").lower()
    data = tmp_path / "data"
    for split, count in (("train", 4), ("test", 2)):
        photos(data / split, dict.fromkeys("abcdef", count))
    done = shell("train", data, "--out", tmp_path / "six", *SMALL)
    assert "top-5" in done.out
    assert "top5" in json.loads((tmp_path / "six/evaluation.json").read_text())
    assert "top-5" in convit.load(tmp_path / "six").card()


def test_what_training_on_two_classes_tells(tmp_path: Path, shell: Shell) -> None:
    data = tmp_path / "data"
    for split, count in (("train", 4), ("test", 2)):
        photos(data / split, {"a": count, "b": count})
    done = shell("train", data, "--out", tmp_path / "run", *SMALL)
    assert done.status == 0
    assert "of 4 test images" in done.out
    for text in (
        done.out,
        *(p.read_text() for p in (tmp_path / "run").glob("*.json*")),
        convit.load(tmp_path / "run").card(),
    ):
        assert "top5" not in text.replace("top-5", "top5").replace("top_5", "top5").lower()


# -- a picture's answer is its own -------------------------------------------------------------------------------------


def test_answers_do_not_depend_on_neighbours(trained: Path, tmp_path: Path) -> None:
    """Of a file with 8-bit weights too: quantised together, a picture of large values would coarsen the others."""
    pytest.importorskip("onnxruntime")
    from convit.export import export_onnx
    from convit_onnx import OnnxClassifier

    classifier = convit.load(trained)
    export_onnx(classifier, tmp_path / "model.onnx", int8=True)
    rng = np.random.default_rng(0)
    one = Image.fromarray(rng.integers(100, 110, (8, 8, 3), dtype=np.uint8))
    others = [Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(6)]
    for model in (OnnxClassifier(tmp_path / "model.onnx"), classifier):
        alone, among = (np.asarray(model.probabilities(images))[0] for images in ([one], [one, *others]))
        assert np.abs(alone - among).max() < 1e-6
