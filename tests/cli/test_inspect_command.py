"""``convit inspect``: the page, the plots, the numbers, and one line for what cannot be."""

import json
import math
import re
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image

from convit.analysis import page as page_module
from convit.cli import inspect_files
from convit.cli.inspect_files import plot_names
from tests.cli.command import Shell, tree

PLOTS = ("mean-maps", "non-locality", "gates", "kernels", "gates-over-training", "non-locality-over-training")


def test_pictures_that_are_given(shell: Shell, run: Path, animals: Path) -> None:
    before = set(tree(run))
    got = shell("inspect", run, animals / "ape" / "0.png", animals / "bee")
    assert got.status == 0, got.err
    out = run / "inspect"
    written = {path.name for path in out.iterdir()}
    maps = {"maps-ape-0.png", "maps-bee-0.png", *(f"maps-{i}.png" for i in range(1, 5))}
    assert written == {"attention.html", "inspection.json", *(f"{name}.png" for name in PLOTS), *maps}
    assert set(tree(run)) - before == {"inspect", *(f"inspect/{name}" for name in written)}
    for path in out.glob("*.png"):
        assert Image.open(path).size[0] > 300
    document = json.loads((out / "inspection.json").read_text())
    names = ["ape/0.png", "bee/0.png", *(f"{i}.png" for i in range(1, 5))]
    assert [seen["picture"] for seen in document["pictures"]] == names
    assert {seen["plot"] for seen in document["pictures"]} == maps
    assert {seen["label"] for seen in document["pictures"]} == {None}
    assert {seen["predictions"][0]["class"] for seen in document["pictures"]} <= {"ape", "bee", "cow"}
    assert document["averaged_over"]["of"].endswith("val images")
    lines = got.out.splitlines()
    case = '"(ape|bee|cow)" [0-9]+%'
    assert re.fullmatch(f"ape/0.png: {case}; without content {case}; without position {case}", lines[0])
    assert sum(" gpsa " in line for line in lines) == sum(layer["kind"] == "gpsa" for layer in document["layers"]) > 0
    assert lines[-1] == f"open {out / 'attention.html'} in a browser and point at a patch"


def test_without_pictures_it_shows_some_of_the_runs_own(shell: Shell, run: Path) -> None:
    document = json.loads(shell("inspect", run, "--json").out)
    split = json.loads((run / "split.json").read_text())
    names = {Path(name).name for name in split["val"]}
    assert document["averaged_over"]["images"] == len(split["val"])
    assert 0 < len(document["pictures"]) <= 4
    assert {Path(seen["picture"]).name for seen in document["pictures"]} <= names
    assert all(
        any(name.endswith(f"{seen['label']}/{Path(seen['picture']).name}") for name in split["val"])
        for seen in document["pictures"]
    )
    page = (run / "inspect" / "attention.html").read_text(encoding="utf-8")
    assert f'"label":"{document["pictures"][0]["label"]}"' in page
    off = [(row["off"], row["layers"]) for row in document["pictures"][0]["masking"]]
    assert off[0] == ("nothing", 0)
    assert off[-1] == ("position embeddings", 0)


def test_some_layers_and_heads_into_another_folder(shell: Shell, run: Path, animals: Path, tmp_path: Path) -> None:
    before = tree(run)
    options = ("--layers", 2, 1, "--heads", 3, "--patch", 1, 2, "--most", 2)
    got = shell("inspect", run, animals / "cow" / "1.png", *options, "--out", tmp_path / "seen")
    assert got.status == 0, got.err
    assert tree(run) == before
    document = json.loads((tmp_path / "seen" / "inspection.json").read_text())
    assert document["averaged_over"]["images"] == 2
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
        (["--layers", "0"], ("layers: got 0, expected one value or more",)),
        (["--layers", "1", "5"], ("layers: got 5, expected numbers from 1 to 4",)),
        (["--layers", "1", "x"], ("layers: got 1 x, expected",)),
        (["--layers"], ("layers: got nothing, expected",)),
        (["--heads", "10"], ("heads: got 10, expected numbers from 1 to 9",)),
        (["--patch", "3", "1"], ("patch: got 3 1, expected a row from 1 to 2",)),
        (["--patch", "1"], ("patch: got 1, expected 2 values",)),
        (["--most", "0"], ("most: got 0, expected a whole number of at least 1",)),
        (["--colour", "red"], ("unknown option 'colour'",)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input(arguments: list[str], says: tuple[str, ...], shell: Shell, run: Path) -> None:
    shell.refuses("inspect", run, *arguments, says=says)


def test_names_are_printable_everywhere(shell: Shell, run: Path, animals: Path, tmp_path: Path) -> None:
    hostile = tmp_path / "-\u202egnp\x1b[2J\udcff.png"
    shutil.copy(animals / "ape" / "0.png", hostile)
    got = shell("inspect", run, hostile, "--skip-masking")
    assert got.status == 0, got.err
    assert got.out.replace("\n", "").isprintable()
    assert all(path.name.isprintable() for path in (run / "inspect").iterdir())
    document = json.loads((run / "inspect" / "inspection.json").read_text(encoding="utf-8"))
    assert document["pictures"][0]["picture"] == r"-\u202egnp\x1b[2J\xff.png"
    assert document["pictures"][0]["plot"].startswith("maps-_")


def test_names_of_plots() -> None:
    assert list(plot_names(["A.png", "a.png", "-\u202ex\n.png", ".png"])) == [
        "maps-A.png",
        "maps-a-2.png",
        "maps-__x_.png",
        "maps-_png.png",
    ]
    assert all(len(name.encode()) < 240 for name in plot_names(["\U0001f431" * 60 + ".png"]))


def test_without_masking(shell: Shell, run: Path, animals: Path) -> None:
    got = shell("inspect", run, animals / "ape" / "0.png", "--skip-masking")
    assert re.fullmatch('0.png: "(ape|bee|cow)" [0-9]+%', got.out.splitlines()[0])
    assert json.loads((run / "inspect" / "inspection.json").read_text())["pictures"][0]["masking"] == []


def test_a_picture_named_twice_is_shown_once(shell: Shell, run: Path, animals: Path) -> None:
    picture = animals / "ape" / "0.png"
    document = json.loads(shell("inspect", run, picture, picture, "--skip-masking", "--json").out)
    assert [seen["picture"] for seen in document["pictures"]] == ["0.png"]


def test_into_the_runs_own_folder(shell: Shell, run: Path) -> None:
    before = tree(run)
    shell.refuses("inspect", run, "--out", run, says=("out: got the run's own folder", run / "inspect"))
    assert tree(run) == before


def test_too_many_pictures_are_refused_after_the_first(
    shell: Shell, run: Path, animals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(run)
    seen = []
    coded = page_module._maps
    monkeypatch.setattr(page_module, "_maps", lambda *given: seen.append(given) or coded(*given))
    monkeypatch.setattr(page_module, "MOST_BYTES", 10_000)
    says = ("got 18 pictures", "page of about", "expected at most", "--layers", "--heads")
    shell.refuses("inspect", run, animals, "--skip-masking", says=says)
    assert len(seen) == 1
    assert tree(run) == before


def test_pictures_are_read_when_they_are_looked_at(shell: Shell, run: Path, animals: Path, tmp_path: Path) -> None:
    """The first is looked at before the second, which is torn, is opened; and then nothing is written."""
    before = tree(run)
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8 not much")
    shell.refuses("inspect", run, animals / "ape" / "0.png", tmp_path / "torn.jpg", says=("torn.jpg",))
    assert tree(run) == before


def test_plots_of_the_last_pictures_go(shell: Shell, run: Path, animals: Path) -> None:
    out = run / "inspect"
    assert shell("inspect", run, animals / "ape" / "0.png", "--skip-masking").status == 0
    document = json.loads((out / "inspection.json").read_text())
    document["pictures"] += [{"plot": "../config.yaml"}, {"plot": "maps-/../../config.yaml"}]
    (out / "inspection.json").write_text(json.dumps(document))
    (out / "maps-mine.png").write_bytes(b"somebody's own")
    assert shell("inspect", run, animals / "ape" / "1.png", "--skip-masking").status == 0
    assert {path.name for path in out.glob("maps-*")} == {"maps-1.png", "maps-mine.png"}
    assert (run / "config.yaml").is_file()
    (out / "inspection.json").write_text("[] torn")
    assert shell("inspect", run, animals / "ape" / "2.png", "--skip-masking").status == 0


@pytest.mark.parametrize("line", ["{", "[]", "3", "null", '{"epoch": "two"}', '{"epoch": 1, "gates": {"a": 1}}'])
def test_a_damaged_history(line: str, shell: Shell, run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as stream:
        stream.write(line + "\n")
    before = tree(run)
    shell.refuses("inspect", run, says=("metrics.jsonl: not readable", "what 'convit train' wrote"))
    assert tree(run) == before


@pytest.mark.parametrize("values", [None, [], [[]], [[1.0, None]], [[1.0, math.nan]], [[10**400, 1]], 7, [7], [["a"]]])
def test_epochs_without_finite_values_are_left_out(values: object, tmp_path: Path) -> None:
    lost = {"epoch": 1, "gates": values, "non_locality": values}
    inspect_files.draw_history(tmp_path, [lost])
    assert not list(tmp_path.iterdir())
    inspect_files.draw_history(tmp_path, [lost, {"epoch": 2, "gates": [[0.5, 0.25]], "non_locality": [[1.0, 2.0]]}])
    assert len(list(tmp_path.iterdir())) == 2


def test_a_model_that_has_diverged(shell: Shell, run: Path) -> None:
    weights = safetensors.torch.load_file(run / "model.safetensors")
    weights["head.bias"] = torch.full_like(weights["head.bias"], torch.nan)
    safetensors.torch.save_file(weights, run / "model.safetensors")
    shell.refuses("inspect", run, says=("not finite",))
    assert not (run / "inspect").exists()
