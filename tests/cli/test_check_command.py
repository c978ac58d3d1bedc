"""``convit check``: what it finds, writes and refuses."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from tests.checks.made import photos, picture, save
from tests.cli.command import SMALL, Shell, tree
from tests.cli.command import photos as dark_and_bright


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


def test_wrong_labels_by_folds_that_are_trained_for_it(tmp_path: Path, shell: Shell) -> None:
    """Dark and bright pictures, two of each under the other's name; the same command again trains nothing."""
    root = dark_and_bright(tmp_path / "photos", {"ape": 30, "bee": 30})
    for i in (0, 1):
        one, other = root / "ape" / f"{i}.png", root / "bee" / f"{i}.png"
        one.rename(tmp_path / "held.png")
        other.rename(one)
        (tmp_path / "held.png").rename(other)
    words = ("check", root, "--folds", 2, "--epochs", 12, "--out", tmp_path / "out", "--write", tmp_path / "list.csv")
    got = shell(*words, "--leave-out", "labels", "--device", "cpu")
    assert got.status == 0, got.err
    found = json.loads((tmp_path / "out" / "check.json").read_text())
    assert found["labels"]["checked"] == 60
    swapped = {f"{name}/{i}.png" for name in ("ape", "bee") for i in (0, 1)}
    assert {one["image"] for one in found["labels"]["probably_wrong"]} == swapped
    assert {one["image"] for one in found["left_out"]} == swapped
    written = (tmp_path / "out" / "folds" / "fold-1" / "model.safetensors").stat().st_mtime_ns
    assert shell(*words, "--leave-out", "labels", "--overwrite").status == 0
    assert (tmp_path / "out" / "folds" / "fold-1" / "model.safetensors").stat().st_mtime_ns == written
    page = (tmp_path / "out" / "check.html").read_text()
    assert "Probable wrong labels" in page
    by_run = shell("check", root, "--run", tmp_path / "out" / "folds", "--out", tmp_path / "again", "--json")
    assert json.loads(by_run.out)["labels"]["probably_wrong"] == found["labels"]["probably_wrong"]
