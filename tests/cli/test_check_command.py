"""``convit check``: what it finds, writes and refuses."""

import contextlib
import csv
import io
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import convit_launcher
from convit.training.folds import read_out_of_fold, write_out_of_fold
from tests.checks.made import photos, picture, save
from tests.cli.command import SMALL, Shell, tree


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    """Photos with a fault of each kind."""
    root = photos(tmp_path / "photos")
    train, test = root / "train", root / "test"
    shutil.copy(train / "ape" / "0.jpg", test / "ape" / "copy.jpg")
    shutil.copy(train / "ape" / "1.jpg", train / "ape" / "again.jpg")
    shutil.copy(train / "ape" / "2.jpg", train / "bee" / "other.jpg")
    save(picture(3).crop((2, 2, 94, 70)), test / "ape" / "cropped.jpg")
    (train / "bee" / "3.jpg").write_bytes((train / "bee" / "3.jpg").read_bytes()[:900])
    return root


def names(groups: list[dict]) -> list[set[str]]:
    return [{image["image"] for image in group["images"]} for group in groups]


def test_every_fault_is_found_and_nothing_is_changed(faulty: Path, tmp_path: Path, shell: Shell) -> None:
    before = tree(faulty)
    got = shell("check", faulty, "--out", tmp_path / "out")
    assert got.status == 0
    found = json.loads((tmp_path / "out" / "check.json").read_text())
    assert [one["image"] for one in found["unreadable"]] == ["train/bee/3.jpg"]
    assert names(found["duplicates"]) == [
        {"train/ape/0.jpg", "test/ape/copy.jpg"},
        {"train/ape/2.jpg", "train/bee/other.jpg"},
        {"train/ape/1.jpg", "train/ape/again.jpg"},
    ]
    assert [(one["across_splits"], one["across_classes"]) for one in found["duplicates"]] == [
        (True, False),
        (False, True),
        (False, False),
    ]
    assert names(found["near_duplicates"]) == [{"train/ape/3.jpg", "test/ape/cropped.jpg"}]
    assert found["near_duplicates"][0]["across_splits"]
    assert "train/bee/3.jpg" in got.out
    assert "test/ape/cropped.jpg" in got.out
    assert tree(faulty) == before
    page = (tmp_path / "out" / "check.html").read_text()
    (about,) = re.findall(r"<h2[^>]*>Near duplicates</h2><p>([^<]*)", page)
    assert "nearly the same" in about


def test_the_cleaned_list_is_trained_on(faulty: Path, tmp_path: Path, shell: Shell) -> None:
    listed = tmp_path / "lists" / "clean.csv"
    listed.parent.mkdir()
    assert shell("check", faulty, "--out", tmp_path / "out", "--write", listed).status == 0
    with listed.open() as stream:
        rows = {(row["path"].removeprefix("../photos/"), row["label"], row["split"]) for row in csv.DictReader(stream)}
    gone = {
        *("train/ape/0.jpg", "train/ape/3.jpg"),  # in test as well, or nearly
        "train/ape/again.jpg",
        *("train/ape/2.jpg", "train/bee/other.jpg"),  # of two classes
        "train/bee/3.jpg",
    }
    there = {p.relative_to(faulty).as_posix() for p in faulty.rglob("*.jpg")}
    left = {path for path, _, _ in rows}
    assert there - left in (gone, gone - {"train/ape/again.jpg"} | {"train/ape/1.jpg"})
    assert all(path.startswith(f"{split}/{label}/") for path, label, split in rows)
    noted = json.loads((tmp_path / "out" / "check.json").read_text())["left_out"]
    assert {one["image"] for one in noted} == there - left
    trained = shell("train", listed, "--out", tmp_path / "run", "--lr", "0.001", *SMALL)
    assert trained.status == 0, trained.err
    again = json.loads((shell("check", listed, "--out", tmp_path / "again", "--json")).out)
    assert [again[kind] for kind in ("unreadable", "duplicates", "near_duplicates")] == [[], [], []]


def test_what_the_list_leaves_out_can_be_chosen(faulty: Path, tmp_path: Path, shell: Shell) -> None:
    shell("check", faulty, "--out", tmp_path / "out", "--write", tmp_path / "a.csv", "--leave-out", "unreadable")
    noted = json.loads((tmp_path / "out" / "check.json").read_text())["left_out"]
    assert [one["image"] for one in noted] == ["train/bee/3.jpg"]


def test_json_alone_on_standard_output(faulty: Path, tmp_path: Path, shell: Shell) -> None:
    got = shell("check", faulty, "--out", tmp_path / "out", "--json")
    assert json.loads(got.out) == json.loads((tmp_path / "out" / "check.json").read_text())


def test_the_page_shows_hostile_names_as_text_and_asks_for_nothing(tmp_path: Path, shell: Shell) -> None:
    root = photos(tmp_path / "photos", splits=("train",))
    nasty = root / "train" / "<img src=x onerror=alert(1)>"
    name = '"><script>alert(1)</script>\n\u202e.jpg'.replace("/", "\u2215")
    save(picture(400), nasty / "whole.jpg")
    shutil.copy(nasty / "whole.jpg", nasty / name)
    (nasty / "empty\udcff.jpg").write_bytes(b"")
    shell("check", root, "--out", tmp_path / "out")
    page = (tmp_path / "out" / "check.html").read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy[1]
    assert not re.search(r"<script|onerror=alert\(1\)>\"|<img src=x", page)
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "\u202e" not in page
    assert "empty\\xff.jpg" in page
    assert all(address.startswith(("data:image", "#")) for address in re.findall(r'(?:src|href)="([^"]*)', page))


def test_an_undivided_folder_has_no_split_in_its_list(tmp_path: Path, shell: Shell) -> None:
    root = photos(tmp_path / "photos", splits=(".",))
    (root / "ape" / "0.jpg").write_bytes(b"")
    shell("check", root, "--out", tmp_path / "out", "--write", tmp_path / "list.csv")
    lines = (tmp_path / "list.csv").read_text().splitlines()
    assert lines[0] == "path,label"
    assert len(lines) == 24


def test_a_report_is_not_laid_over_that_of_other_data(
    tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for where in ("a", "b"):
        photos(tmp_path / where / "photos", per_class=3, splits=("train",))
        assert shell("check", f"{where}/photos").status == 0
    assert shell("check", "a/photos").status == 0
    roots = [json.loads(Path(name, "check.json").read_text())["root"] for name in ("check-photos", "check-photos-2")]
    assert [Path(root).parent.name for root in roots] == ["a", "b"]
    shell.refuses("check", "b/photos", "--out", "check-photos", says=("out", "a/photos", "expected"))


def test_bad_input_is_one_line(faulty: Path, tmp_path: Path, shell: Shell) -> None:
    listed = tmp_path / "list.csv"
    listed.write_text("path,label\nphotos/train/ape/0.jpg,a\nphotos/train/bee/0.jpg,b\n")
    before = tree(tmp_path)
    for words, says in (
        ((tmp_path / "nowhere",), ("nowhere", "expected")),
        ((faulty, "--out", faulty / "train"), ("out", "among the images")),
        ((faulty, "--write", faulty / "list.csv"), ("write", "among the images")),
        ((faulty, "--write", listed), ("write", "exists", "--overwrite")),
        ((listed, "--write", listed, "--overwrite"), ("write", "never changed")),
        ((faulty, "--write", tmp_path / "list.txt"), ("write", ".csv")),
        ((faulty, "--leave-out", "labels"), ("leave-out", "--write")),
        ((faulty, "--write", tmp_path / "b.csv", "--leave-out", "lables"), ("leave-out", "labels")),
        (("digits", "--write", tmp_path / "b.csv"), ("write", "no files")),
        ((faulty, "--val", "test"), ("val", "--train")),
    ):
        shell.refuses("check", *words, says=says)
    assert tree(tmp_path) == before


def test_labels_by_a_run_are_those_of_images_that_it_did_not_learn_from(
    run: Path, animals: Path, tmp_path: Path, shell: Shell
) -> None:
    got = shell("check", animals, "--run", run, "--out", tmp_path / "out")
    assert got.status == 0, got.err
    found = json.loads((tmp_path / "out" / "check.json").read_text())
    split = json.loads((run / "split.json").read_text())
    assert found["labels"]["checked"] == len(split["val"])
    assert found["splits"] == {"train": len(split["train"]), "val": len(split["val"])}
    assert {one["image"] for one in found["labels"]["probably_wrong"]} <= set(split["val"])
    assert "did not learn from" in found["labels"]["predictions"]


def test_a_run_on_other_images_is_refused(run: Path, animals: Path, tmp_path: Path, shell: Shell) -> None:
    other = shutil.copytree(animals, tmp_path / "other")
    for path in sorted(other.rglob("*.png")):
        save(picture(int(path.stem)), path)
    shell.refuses("check", other, "--run", run, says=("run", "other images", "expected"))
    shutil.rmtree(other / "ape")
    shell.refuses("check", other, "--run", run, says=("run", "other classes", "expected"))


@pytest.fixture(scope="module")
def checked_by_folds(animals: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A copy of the photos, and the folder of a check that trained for them; read only."""
    root = tmp_path_factory.mktemp("folds")
    data = Path(shutil.copytree(animals, root / "photos"))
    words = ["convit", "check", str(data), "--folds", "2", "--epochs", "1", "--out", str(root / "out")]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setattr(sys, "argv", [*words, "--device", "cpu"])
        assert convit_launcher.main() == 0
    return data, root / "out"


def test_with_folds_every_image_is_looked_at_and_the_same_command_trains_nothing(
    checked_by_folds: tuple[Path, Path], tmp_path: Path, shell: Shell
) -> None:
    data, before = checked_by_folds
    assert json.loads((before / "check.json").read_text())["labels"]["checked"] == 18
    out = shutil.copytree(before, tmp_path / "out")
    (out / "folds" / "folds.json").unlink()  # as if it had been stopped at the end
    weights = [out / "folds" / f"fold-{number}" / "model.safetensors" for number in (1, 2)]
    times = [path.stat().st_mtime_ns for path in weights]
    again = shell("check", data, "--folds", 2, "--epochs", 1, "--out", out, "--json", "--device", "cpu")
    assert json.loads(again.out)["labels"]["checked"] == 18
    assert [path.stat().st_mtime_ns for path in weights] == times
    shell.refuses("check", data, "--folds", 3, "--out", out, "--device", "cpu", says=("folds", "began with 2"))


def test_wrong_labels_are_shown_and_left_out_of_the_list(
    checked_by_folds: tuple[Path, Path], tmp_path: Path, shell: Shell
) -> None:
    """Predictions that are sure and right, but for two pictures whose labels they deny."""
    data, before = checked_by_folds
    run = shutil.copytree(before / "folds", tmp_path / "run")
    predictions = read_out_of_fold(run / "out-of-fold.csv")
    denied = {"ape/1.png": 1, "bee/2.png": 2}
    said = [denied.get(name, target) for name, target in zip(predictions.names, predictions.targets, strict=True)]
    probabilities = 0.04 + 0.88 * np.eye(3)[said]
    write_out_of_fold(replace(predictions, probabilities=probabilities), run / "out-of-fold.csv")
    out, listed = tmp_path / "out", tmp_path / "list.csv"
    got = shell("check", data, "--run", run, "--out", out, "--write", listed, "--leave-out", "labels")
    assert got.status == 0, got.err
    found = json.loads((out / "check.json").read_text())
    wrong = {one["image"]: one["suggested"] for one in found["labels"]["probably_wrong"]}
    assert wrong == {"ape/1.png": "bee", "bee/2.png": "cow"}
    assert {one["image"] for one in found["left_out"]} == set(denied)
    assert "Probable wrong labels" in (out / "check.html").read_text()
    new = Path(shutil.copytree(data, tmp_path / "photos"))
    save(picture(7, (8, 8)), new / "cow" / "new.png")  # no run learned from it: the average says what it is
    more = json.loads(shell("check", new, "--run", run, "--out", out / "more", "--json").out)["labels"]
    assert more["checked"] == 19
    assert "on 1 image that none of them learned from" in more["predictions"]
    (run / "out-of-fold.csv").write_text("image,class\n")
    shell.refuses("check", data, "--run", run, says=("out-of-fold.csv", "not readable", "expected"))


def test_the_folder_of_folds_predicts_is_evaluated_and_exported_but_not_inspected(
    checked_by_folds: tuple[Path, Path], tmp_path: Path, shell: Shell
) -> None:
    data, before = checked_by_folds
    run = shutil.copytree(before / "folds", tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    picture = data / "ape" / "0.png"
    mean: dict[str, float] = {}
    for number in (1, 2):
        for one in json.loads(shell("predict", run / f"fold-{number}", picture, "--json").out)[0]["predictions"]:
            mean[one["class"]] = mean.get(one["class"], 0) + one["probability"] / 2
    whole = json.loads(shell("predict", run, picture, "--json").out)[0]["predictions"]
    assert {one["class"]: one["probability"] for one in whole} == pytest.approx(mean, abs=1e-5)
    got = shell("evaluate", run, data, "--out", tmp_path / "evaluation")
    assert got.status == 0, got.err
    assert "18 of the 18 files" in got.err
    assert "out-of-fold.csv" in got.err
    assert shell("export", run, "--out", tmp_path / "model.onnx").status == 0
    exported = json.loads(shell("predict", tmp_path / "model.onnx", picture, "--json").out)[0]["predictions"]
    assert {one["class"]: one["probability"] for one in exported} == pytest.approx(mean, abs=1e-4)
    shell.refuses("inspect", run, says=("2 runs", "fold-1"))
