"""``convit inspect``: the page, the plots, the numbers, and one line for what cannot be."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.command import Shell, tree

PLOTS = ("mean-maps", "non-locality", "gates", "kernels", "gates-over-training", "non-locality-over-training")


def test_pictures_that_are_given(shell: Shell, run: Path, animals: Path) -> None:
    before = set(tree(run))
    got = shell("inspect", run, animals / "ape" / "0.png", animals / "bee")
    assert got.status == 0, got.err
    out = run / "inspect"
    written = {path.name for path in out.iterdir()}
    maps = {"maps-0.png", "maps-0-2.png", *(f"maps-{i}.png" for i in range(1, 5))}
    assert written == {"attention.html", "inspection.json", *(f"{name}.png" for name in PLOTS), *maps}
    assert set(tree(run)) - before == {"inspect", *(f"inspect/{name}" for name in written)}
    for path in out.glob("*.png"):
        assert Image.open(path).size[0] > 300
    document = json.loads((out / "inspection.json").read_text())
    assert [seen["picture"] for seen in document["pictures"]] == ["0.png", *(f"{i}.png" for i in range(5))]
    assert {seen["predictions"][0]["class"] for seen in document["pictures"]} <= {"ape", "bee", "cow"}
    assert document["averaged_over"]["of"].endswith("val images")
    lines = got.out.splitlines()
    assert lines[0].startswith("0.png: ")
    assert sum(" gpsa " in line for line in lines) == sum(layer["kind"] == "gpsa" for layer in document["layers"]) > 0
    assert lines[-1] == f"open {out / 'attention.html'} in a browser and point at a patch"


def test_without_pictures_it_shows_some_of_the_runs_own(shell: Shell, run: Path) -> None:
    document = json.loads(shell("inspect", run, "--json").out)
    split = json.loads((run / "split.json").read_text())
    names = {Path(name).name for name in split["val"]}
    assert document["averaged_over"]["images"] == len(split["val"])
    assert 0 < len(document["pictures"]) <= 4
    assert {seen["picture"] for seen in document["pictures"]} <= names
    off = [(row["off"], row["layers"]) for row in document["pictures"][0]["masking"]]
    assert off[0] == ("nothing", 0)
    assert off[-1] == ("position embeddings", 0)


def test_some_layers_and_heads_into_another_folder(shell: Shell, run: Path, animals: Path, tmp_path: Path) -> None:
    before = tree(run)
    options = ("--layers", 2, 1, "--heads", 3, "--patch", 1, 2, "--scale", "linear", "--most", 2)
    got = shell("inspect", run, animals / "cow" / "1.png", *options, "--out", tmp_path / "seen")
    assert got.status == 0, got.err
    assert tree(run) == before
    document = json.loads((tmp_path / "seen" / "inspection.json").read_text())
    assert document["averaged_over"]["images"] <= 2
    assert len(document["layers"]) > 2  # numbers are of all layers: only maps are chosen


def test_data_that_are_gone(shell: Shell, run: Path, animals: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    config = run / "config.yaml"
    config.write_text(config.read_text().replace(str(animals), str(tmp_path / "gone")))
    shell.refuses("inspect", run, says=("gone", "or expected IMAGE..., or --data DATA"))
    got = shell("inspect", run, animals / "ape" / "0.png", "--json")
    assert json.loads(got.out)["averaged_over"] == {"images": 1, "of": "the pictures given"}
    assert "averages are over the pictures given" in got.err
    shutil.copytree(animals, moved)
    document = json.loads(shell("inspect", run, "--data", moved, "--json").out)
    assert document["averaged_over"] == {"images": 18, "of": "elsewhere, all images"}


def test_a_model_without_its_run(shell: Shell, run: Path, animals: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(run / name, bare)
    shell.refuses("inspect", bare, says=("bare", "expected IMAGE..., or --data DATA"))
    assert shell("inspect", bare, animals / "ape" / "0.png").status == 0
    assert not list((bare / "inspect").glob("*-over-training.png"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nothing.png"], ("nothing.png", "no such file or folder")),
        (["--layers", "0"], ("layers: got 0", "expected some of 1 to 4")),
        (["--layers", "1", "5"], ("layers: got 1 5", "1 to 4")),
        (["--heads", "10"], ("heads: got 10", "1 to 9")),
        (["--patch", "3", "1"], ("patch: got 3 1", "row 1 to 2")),
        (["--most", "0"], ("most: got 0", "at least 1")),
        (["--scale", "cubic"], ("scale", "cubic", "log")),
        (["--data", "nowhere"], ("nowhere",)),
        (["--colour", "red"], ("colour",)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input(arguments: list[str], says: tuple[str, ...], shell: Shell, run: Path) -> None:
    shell.refuses("inspect", run, *arguments, says=says)


def test_a_picture_that_does_not_decode(shell: Shell, run: Path, tmp_path: Path) -> None:
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8 not much")
    shell.refuses("inspect", run, tmp_path / "torn.jpg", says=("torn.jpg",))
    shell.refuses("inspect", tmp_path / "no-run", says=("no-run", "expected a run folder"))


def test_names_from_users_stay_text(shell: Shell, run: Path, animals: Path, tmp_path: Path) -> None:
    hostile = tmp_path / "<img src=x onerror=alert(1)>.png"
    shutil.copy(animals / "ape" / "0.png", hostile)
    assert shell("inspect", run, hostile).status == 0
    page = (run / "inspect" / "attention.html").read_text(encoding="utf-8")
    assert "<img src=x" not in page
