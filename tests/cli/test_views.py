"""``--views flip``: the mean of an image and its mirror image, in every command that answers."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

import convit
from convit.errors import InputError
from tests.cli.command import Shell
from tests.helpers import needs_export


def by_hand(run: Path, album: Path) -> np.ndarray:
    """The mean of the probabilities of the pictures and of their mirror images."""
    classifier = convit.load(run)
    pictures = [Image.open(path) for path in sorted(album.rglob("*.png"))]
    views = [classifier.probabilities(some) for some in (pictures, [ImageOps.mirror(p) for p in pictures])]
    return ((views[0] + views[1]) / 2).numpy()


def said(document: str, class_names: tuple[str, ...]) -> np.ndarray:
    """Probabilities of the JSON of ``convit predict``."""
    rows = [{p["class"]: p["probability"] for p in entry["predictions"]} for entry in json.loads(document)]
    return np.array([[row[name] for name in class_names] for row in rows])


def test_predict_gives_the_mean_of_both_views(trained: Path, album: Path, shell: Shell) -> None:
    got = shell("predict", trained, album, "--views", "flip", "--json")
    expected = by_hand(trained, album)
    names = convit.load(trained).class_names
    assert said(got.out, names) == pytest.approx(expected, abs=1e-6)
    assert np.abs(said(shell("predict", trained, album, "--json").out, names) - expected).max() > 1e-4


def test_a_picture_and_its_mirror_image_have_one_answer(trained: Path, album: Path) -> None:
    mirrored = convit.load(trained).mirrored()
    picture = Image.open(album / "a/0.png")
    both = mirrored.probabilities([picture, ImageOps.mirror(picture)])
    assert both[0].numpy() == pytest.approx(both[1].numpy(), abs=1e-6)


def test_evaluate_in_a_folder_of_its_own(run: Path, animals: Path, shell: Shell) -> None:
    got = shell("evaluate", run, animals, "--split", "val", "--views", "flip", "--json")
    assert got.status == 0
    assert [path.name for path in run.glob("evaluation-*")] == ["evaluation-animals-val-flip"]
    split = json.loads((run / "split.json").read_text())
    names = list(split["val"])
    probabilities = convit.load(run).mirrored().probabilities([animals / name for name in names])
    classes = convit.load(run).class_names
    right = [
        classes[int(row.argmax())] == Path(name).parent.name for row, name in zip(probabilities, names, strict=True)
    ]
    assert json.loads(got.out)["top1"] == pytest.approx(100 * np.mean(right))


@needs_export
def test_an_exported_file_has_both_views(trained: Path, album: Path, tmp_path: Path, shell: Shell) -> None:
    path, plain = tmp_path / "flip.onnx", tmp_path / "plain.onnx"
    assert shell("export", trained, "--out", path, "--views", "flip").status == 0
    assert shell("export", trained, "--out", plain).status == 0
    assert path.stat().st_size < 1.3 * plain.stat().st_size + 50_000, "the weights are there twice"
    small, plain_small = tmp_path / "flip-int8.onnx", tmp_path / "int8.onnx"
    assert shell("export", trained, "--out", small, "--views", "flip", "--int8").status == 0
    assert shell("export", trained, "--out", plain_small, "--int8").status == 0
    assert small.stat().st_size < 1.3 * plain_small.stat().st_size + 50_000, "its weights are not int8"
    names = convit.load(trained).class_names
    assert said(shell("predict", path, album, "--json").out, names) == pytest.approx(by_hand(trained, album), abs=1e-4)
    shell.refuses("predict", path, album, "--views", "flip", says=("views: got flip for an .onnx file",))


def test_what_does_not_go_with_it(trained: Path, album: Path, tmp_path: Path, shell: Shell) -> None:
    flip = ("--views", "flip")
    shell.refuses("predict", trained, album, *flip, "--reject", 0.1, says=("reject: got 0.1 with --views flip",))
    shell.refuses("evaluate", trained, album, *flip, "--coverage", 0.9, says=("coverage: got 0.9 with --views flip",))
    shell.refuses(
        "export", trained, *flip, "--format", "web", says=("format: got web with --views", "expected --format onnx")
    )
    with pytest.raises(InputError, match="average of two views"):
        convit.load(trained).mirrored().save(tmp_path / "saved")
