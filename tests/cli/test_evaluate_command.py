"""``convit evaluate``: on which images, and what it prints and writes."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import convit
from tests.cli.command import SMALL, Shell, photos, tree

pytestmark = pytest.mark.pictures

LEARNED = "the run learned from 15 of the 18 images: accuracy on them says too much\n"


def test_own_folder_means_the_validation_images(run: Path, animals: Path, shell: Shell) -> None:
    got = shell("evaluate", run, animals)
    assert (got.status, got.err) == (0, "")
    assert "animals, val images: top-1 " in got.out
    out = run / "evaluation-animals-val"
    files = {"evaluation.json", "confusion.csv", "confusion.png", "mistakes.csv", "reliability.png"}
    assert {p.name for p in out.iterdir()} - {"mistakes.png"} == files
    written = json.loads((out / "evaluation.json").read_text())
    own = json.loads((run / "evaluation.json").read_text())
    assert written["images"] == 3
    assert written["confusion"] == own["confusion"]
    assert written["loss"] == pytest.approx(own["loss"], rel=1e-5)
    with (out / "confusion.csv").open() as stream:
        head, *rows = csv.reader(stream)
    assert head[1:] == [row[0] for row in rows] == ["ape", "bee", "cow"]
    assert [[int(n) for n in row[1:]] for row in rows] == written["confusion"]
    with Image.open(out / "confusion.png") as image:
        assert image.format == "PNG"
    with (out / "mistakes.csv").open() as stream:
        wrong = list(csv.DictReader(stream))
    assert len(wrong) == 3 - sum(written["confusion"][i][i] for i in range(3))
    assert all(row["image"].startswith(row["true class"]) and row["taken for"] != row["true class"] for row in wrong)
    assert (out / "mistakes.png").exists() == bool(wrong) == ("mistakes.png" in got.out)


@pytest.mark.parametrize(("split", "images"), [("auto", 3), ("val", 3), ("train", 15), ("all", 18)])
def test_splits_of_the_own_folder(
    split: str, images: int, trained: Path, animals: Path, shell: Shell, tmp_path: Path
) -> None:
    got = shell("evaluate", trained, animals, "--split", split, "--json", "--out", tmp_path)
    document = json.loads(got.out)
    assert (got.status, got.err) == (0, LEARNED if split == "all" else "")
    assert document["images"] == images
    assert document["split"] == ("val" if split == "auto" else split)
    assert {"run", "data", "top1", "loss", "classes", "confusion"} <= document.keys()


def test_other_data_means_all_of_it_matched_by_name(trained: Path, tmp_path: Path, shell: Shell) -> None:
    other = photos(tmp_path / "other", {"bee": 2, "cow": 3})
    target = tmp_path / "figures.json"
    got = shell("evaluate", trained, other, "--json", target, "--out", tmp_path / "out")
    document = json.loads(target.read_text())
    assert (document["split"], document["images"]) == ("all", 5)
    assert [entry["images"] for entry in document["classes"]] == [0, 2, 3]  # by position these were 2, 3, 0
    assert "other, all images: top-1" in got.out


def test_json_is_one_document_and_nothing_else(trained: Path, animals: Path, tmp_path: Path) -> None:
    """In a process of its own: whatever a library prints would show."""
    arguments = ["evaluate", str(trained), str(animals), "--json", "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-m", "convit", *arguments], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["images"] == 3
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("DATA DATA", ("animals: no config.json in it", "expected a run folder")),
        ("RUN DATA --split test", ("animals: got split test", "expected one of auto, all, train, val")),
        ("RUN DATA --split tset", ("split: got tset, expected", "did you mean 'test'?")),
        ("RUN DATA --workers -1", ("workers: got -1, expected a whole number from 0 to 1024",)),
        ("RUN DATA --jsn", ("unknown option 'jsn'; did you mean 'json'?",)),
        ("RUN DATA DATA", ("animals: no config.json in it", "expected a run folder")),
        ("RUN RUN RUN DATA", ("run: got 3 runs, expected one, or two to compare",)),
        ("RUN", ("data: got none",)),
        ("", ("run: got none",)),
    ],
)
def test_bad_input(arguments: str, says: tuple[str, ...], run: Path, animals: Path, shell: Shell) -> None:
    before = tree(run)
    given = [{"RUN": run, "DATA": animals}.get(word, word) for word in arguments.split()]
    shell.refuses("evaluate", *given, says=says)
    assert tree(run) == before


def test_copied_folder(run: Path, animals: Path, tmp_path: Path, shell: Shell) -> None:
    """The same pictures elsewhere: all of them count, with a warning; those not learned from can be asked for."""
    copy = shutil.copytree(animals, tmp_path / "copy")
    got = shell("evaluate", run, copy, "--out", tmp_path / "out")
    assert got.status == 0
    assert "15 of the 18 files have names of images that the run learned from" in got.err
    got = shell("evaluate", run, copy, "--split", "val", "--json", "--out", tmp_path / "out")
    assert (json.loads(got.out)["images"], got.err) == (3, "")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
@pytest.mark.parametrize("words", ["evaluate RUN DATA", "predict RUN DATA", "train DATA --out NEW"])
def test_no_cuda(words: str, trained: Path, animals: Path, tmp_path: Path, shell: Shell) -> None:
    places = {"RUN": trained, "DATA": animals, "NEW": tmp_path / "new"}
    given = [places.get(word, word) for word in words.split()]
    shell.refuses(*given, "--device", "cuda", says=("device: got 'cuda'", "lacks; available: cpu"))
    assert not (tmp_path / "new").exists()


def test_run_of_some_of_the_classes(tmp_path: Path, shell: Shell) -> None:
    """On the official test split of all of them: its own are evaluated."""
    data = tmp_path / "data"
    for split, count in (("train", 6), ("test", 3)):
        photos(data / split, dict.fromkeys(("ape", "bee", "cow", "yak"), count))
    assert shell("train", data, "--out", tmp_path / "run", "--classes", "2", *SMALL).status == 0
    got = shell("evaluate", tmp_path / "run", data, "--json")
    assert got.status == 0
    assert "not evaluated: 6 images of classes that the run left out by --classes" in got.err
    result = json.loads(got.out)
    assert (result["split"], result["images"], len(result["classes"])) == ("test", 6, 2)
    names = convit.load(tmp_path / "run").class_names
    others = photos(tmp_path / "others", dict.fromkeys(sorted({"ape", "bee", "cow", "yak"} - set(names)), 2))
    shell.refuses("evaluate", tmp_path / "run", others, says=("no image of the run's classes", names[0]))


@pytest.mark.parametrize(
    ("name", "text"),
    [("split.json", "[1, 2]"), ("split.json", "{"), ("split.json", '{"val": 3}'), ("config.yaml", "datum: 3")],
)
def test_damaged_run(name: str, text: str, run: Path, animals: Path, tmp_path: Path, shell: Shell) -> None:
    (run / name).write_text(text)
    shell.refuses("evaluate", run, animals, "--out", tmp_path / "out", says=(run / name,))


def test_false_alarms_and_coverage_are_measured(trained: Path, animals: Path, tmp_path: Path, shell: Shell) -> None:
    asked = ("--split", "all", "--reject", 0.25, "--coverage", 0.75)
    got = shell("evaluate", trained, animals, *asked, "--json", "--out", tmp_path)
    assert (got.status, got.err) == (0, LEARNED)
    document = json.loads(got.out)
    answers = convit.load(trained).answer(sorted(animals.glob("*/*.png")), reject=0.25, coverage=0.75)
    truths = [path.parent.name for path in sorted(animals.glob("*/*.png"))]
    assert document["none_of_these"]["rejected"] == sum(bool(answer.none_of_these) for answer in answers)
    covered = [truth in (answer.classes or ()) for truth, answer in zip(truths, answers, strict=True)]
    assert document["sets"]["coverage"] == pytest.approx(sum(covered) / 18)
    assert [entry["images"] for entry in document["sets"]["classes"]] == [6, 5, 7]
    assert sum(entry["covered"] for entry in document["sets"]["classes"]) == sum(covered)
    assert json.loads((tmp_path / "evaluation.json").read_text())["sets"] == document["sets"]
    said = shell("evaluate", trained, animals, *asked, "--out", tmp_path).out
    assert "none of these: " in said
    assert "prediction sets: " in said
    refused = shell.refuses("evaluate", trained, animals, "--reject", 0.05, "--out", tmp_path / "no", says=("reject",))
    assert "3 validation images" in refused
    assert not (tmp_path / "no").exists()


# -- two runs ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def other(trained: Path, tmp_path: Path) -> Path:
    """A run that knows the same images, and answers otherwise: its classes are in another order."""
    copy = Path(shutil.copytree(trained, tmp_path / "other", ignore=shutil.ignore_patterns("checkpoints")))
    classifier = convit.load(copy)
    with torch.no_grad():
        classifier.model.head.weight.copy_(classifier.model.head.weight.roll(1, 0))
        classifier.model.head.bias.copy_(classifier.model.head.bias.roll(1, 0))
    classifier.calibration = None
    classifier.save(copy)
    return copy


def wrong(folder: Path) -> set[str]:
    with (folder / "mistakes.csv").open() as stream:
        return {row["image"] for row in csv.DictReader(stream)}


def test_two_runs_are_compared_image_by_image(
    trained: Path, other: Path, animals: Path, tmp_path: Path, shell: Shell
) -> None:
    got = shell("evaluate", trained, other, animals, "--split", "all", "--json", "--out", tmp_path / "both")
    assert (got.status, got.err) == (0, LEARNED)
    document = json.loads(got.out)
    for run, name in ((trained, "a"), (other, "b")):
        assert shell("evaluate", run, animals, "--split", "all", "--out", tmp_path / name).status == 0
    a, b = wrong(tmp_path / "a"), wrong(tmp_path / "b")
    assert a != b  # there is something to compare
    assert (document["first_alone_right"], document["second_alone_right"]) == (len(b - a), len(a - b))
    assert (document["neither_right"], document["both_right"]) == (len(a & b), 18 - len(a | b))
    assert document["difference"] == pytest.approx(document["runs"][0]["top1"] - document["runs"][1]["top1"])
    assert document["difference_interval"][0] <= document["difference"] <= document["difference_interval"][1]
    with (tmp_path / "both/differences.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["image"]: row["right"] for row in rows} == dict.fromkeys(b - a, "first") | dict.fromkeys(
        a - b, "second"
    )
    assert json.loads((tmp_path / "both/comparison.json").read_text())["mcnemar_p"] == document["mcnemar_p"]


def test_a_run_does_not_differ_from_itself(trained: Path, animals: Path, shell: Shell) -> None:
    before = tree(trained)
    got = shell("evaluate", trained, trained, animals)
    assert (got.status, got.err) == (0, "")
    assert "p = 1: no difference can be told" in got.out
    assert tree(trained) == before


def test_runs_of_other_validation_images_are_not_compared_on_them(
    trained: Path, other: Path, animals: Path, tmp_path: Path, shell: Shell
) -> None:
    split = json.loads((other / "split.json").read_text())
    split["val"][0], split["train"][0] = split["train"][0], split["val"][0]
    (other / "split.json").write_text(json.dumps(split))
    (other / "images.json").unlink()
    shell.refuses("evaluate", trained, other, animals, says=("not the same ones", "--split all"))


def test_a_comparison_does_not_go_where_an_evaluation_is(
    trained: Path, other: Path, animals: Path, tmp_path: Path, shell: Shell
) -> None:
    assert shell("evaluate", trained, animals, "--out", tmp_path / "out").status == 0
    before = tree(tmp_path / "out")
    shell.refuses("evaluate", trained, other, animals, "--out", tmp_path / "out", says=("out: got", "expected another"))
    assert tree(tmp_path / "out") == before
