"""``convit predict``: pictures and folders in, classes out."""

import csv
import json
from pathlib import Path

import pytest

import convit
from tests.cli.command import Shell


def test_terminal(trained: Path, album: Path, shell: Shell) -> None:
    got = shell("predict", trained, album, "--top-k", 2)
    assert (got.status, got.err) == (0, "")
    lines = got.out.splitlines()
    names = [str(album / name) for name in ("a/0.png", "a/1.png", "b/deep/0.png", "b/deep/1.png")]
    assert [line.split()[0] for line in lines] == names
    expected = convit.load(trained).predict(names[2], top_k=2)
    assert lines[2].split()[1:] == [word for p in expected for word in (p.class_name, f"{p.probability:.1%}")]


@pytest.mark.parametrize(("asked", "given"), [(1, 1), (3, 3), (99, 3), (None, 3)])
def test_json(asked: int | None, given: int, trained: Path, album: Path, shell: Shell) -> None:
    top_k = () if asked is None else ("--top-k", asked)
    got = shell("predict", trained, album / "a/0.png", album / "b", album / "a/0.png", "--json", *top_k)
    assert (got.status, got.err) == (0, "")
    document = json.loads(got.out)
    names = ("a/0.png", "b/deep/0.png", "b/deep/1.png", "a/0.png")
    assert [entry["image"] for entry in document] == [str(album / name) for name in names]
    for entry in document:
        values = [p["probability"] for p in entry["predictions"]]
        assert len(values) == given
        assert values == sorted(values, reverse=True)
    assert {p["class"] for p in document[0]["predictions"]} <= {"ape", "bee", "cow"}
    if given == 3:
        assert sum(p["probability"] for p in document[0]["predictions"]) == pytest.approx(1, abs=1e-5)


def test_files(trained: Path, album: Path, tmp_path: Path, shell: Shell) -> None:
    got = shell("predict", trained, album, "--csv", tmp_path / "x.csv", "--json", tmp_path / "x.json", "--top-k", 2)
    assert len(got.out.splitlines()) == 4
    with (tmp_path / "x.csv").open() as stream:
        head, *rows = csv.reader(stream)
    assert head == ["image", "rank", "class", "probability", "reason"]
    document = json.loads((tmp_path / "x.json").read_text())
    flat = [
        [entry["image"], str(rank), p["class"], f"{p['probability']:.6f}", ""]
        for entry in document
        for rank, p in enumerate(entry["predictions"], start=1)
    ]
    assert rows == flat
    assert len(rows) == 8


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("ALBUM ALBUM", ("album: no config.json in it", "expected a run folder")),
        ("RUN ALBUM --top-k 0", ("top-k: got 0, expected a whole number of at least 1",)),
        ("RUN ALBUM --top-k many", ("top-k: got many, expected",)),
        ("RUN ALBUM --topk 3", ("unknown option 'topk'; did you mean 'top-k'?",)),
        ("RUN", ("images: got none, expected one value or more, each a path",)),
    ],
)
def test_bad_input(arguments: str, says: tuple[str, ...], trained: Path, album: Path, shell: Shell) -> None:
    places = {"RUN": trained, "ALBUM": album}
    shell.refuses("predict", *(places.get(word, word) for word in arguments.split()), says=says)


def test_none_of_these_and_sets(trained: Path, album: Path, tmp_path: Path, shell: Shell) -> None:
    """The run has three validation images: a rate of 25% and a coverage of 75% are the strictest that they can tell."""
    asked = ("--reject", 0.25, "--coverage", 0.75)
    got = shell("predict", trained, album, *asked, "--json", "--csv", tmp_path / "x.csv")
    assert (got.status, got.err) == (0, "")
    document = json.loads(got.out)
    expected = convit.load(trained).answer([entry["image"] for entry in document], reject=0.25, coverage=0.75)
    assert [entry["none_of_these"] for entry in document] == [answer.none_of_these for answer in expected]
    assert [tuple(entry["set"]) for entry in document] == [answer.classes for answer in expected]
    with (tmp_path / "x.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    in_set = {(row["image"], row["class"]) for row in rows if row["in set"] == "yes"}
    assert in_set == {(entry["image"], name) for entry in document for name in entry["set"]}
    assert {row["image"] for row in rows if row["none of these"] == "yes"} == {
        entry["image"] for entry in document if entry["none_of_these"]
    }
    said = shell("predict", trained, album, *asked).out.splitlines()
    assert ["none of these" in line for line in said] == [entry["none_of_these"] for entry in document]
    assert "set" not in json.loads(shell("predict", trained, album, "--json").out)[0]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (("--reject", "0.05"), ("reject: got 0.05, which 3 validation images cannot tell", "0.25 or more")),
        (("--coverage", "0.95"), ("coverage: got 0.95, which 3 validation images cannot tell", "0.75 or less")),
        (("--reject", "2"), ("reject: got 2, expected",)),
        (("--reject", "0"), ("reject: got 0, expected 0.01 to 0.50",)),
    ],
)
def test_thresholds_that_cannot_be_met(
    asked: tuple[str, ...], says: tuple[str, ...], trained: Path, album: Path, shell: Shell
) -> None:
    shell.refuses("predict", trained, album, *asked, says=says)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_full_disk(trained: Path, album: Path, shell: Shell) -> None:
    shell.refuses("predict", trained, album, "--csv", "/dev/full", says=("No space left", "expected a place with room"))
