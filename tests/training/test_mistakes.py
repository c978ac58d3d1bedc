"""Which images a model is most wrong about: by hand, on disk and in the picture."""

import csv
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from convit.data import ArrayImages, ImageSet, Preprocess, open_source
from convit.training import plots
from convit.training.evaluation import logits_of, score
from convit.training.evaluation_files import write_evaluation
from convit.training.mistakes import Mistake, mistakes, reliability, table, write_mistakes
from tests.training.small import photos
from tests.training.test_evaluation import Brightness
from tests.training.test_plots import HARD_NAMES, is_picture

pytestmark = pytest.mark.pictures

PROBABILITIES = torch.tensor(
    [[0.6, 0.3, 0.1], [0.7, 0.2, 0.1], [0.05, 0.9, 0.05], [0.2, 0.3, 0.5], [0.3, 0.3, 0.4]], dtype=torch.float64
)
TARGETS = [0, 1, 0, 2, 0]  # right, wrong, very wrong, right, wrong


def images(names: tuple[str, ...] = ("a", "b", "c"), targets: list[int] = TARGETS) -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 255, (len(targets), 6, 9, 3)).astype(np.uint8)
    return ArrayImages(pixels, [f"photos/{i}.png" for i in range(len(targets))], targets, names)


def answers() -> NDArray[np.float64]:
    return table(PROBABILITIES.log().float(), np.array(TARGETS))


def test_by_hand() -> None:
    worst, second, third = mistakes(answers(), images())
    assert [(m.index, m.name, m.true, m.predicted) for m in (worst, second, third)] == [
        (2, "photos/2.png", "a", "b"),
        (1, "photos/1.png", "b", "a"),
        (4, "photos/4.png", "a", "c"),
    ]
    assert [m.probability for m in (worst, second, third)] == pytest.approx([0.9, 0.7, 0.4])
    assert [m.loss for m in (worst, second, third)] == pytest.approx([-math.log(p) for p in (0.05, 0.2, 0.3)])


def test_of_images(tmp_path: Path) -> None:
    """A model that goes by brightness, on images of which two are in the wrong folder."""
    data = photos(tmp_path / "data", {"dark": 3, "light": 4})
    (data / "dark/0.png").rename(data / "light/z.png")
    (data / "light/0.png").rename(data / "dark/y.png")
    source = open_source(str(data)).splits["all"]
    logits = logits_of(Brightness(), source, Preprocess(image_size=(8, 8)), batch_size=3)
    found = table(logits, source.targets)
    assert {(m.name, m.true, m.predicted) for m in mistakes(found, source)} == {
        ("light/z.png", "light", "dark"),
        ("dark/y.png", "dark", "light"),
    }
    result = score(logits, source.targets, source.class_names)
    assert result.right == 5
    assert found[:, 0].mean() == pytest.approx(result.loss, rel=1e-6)


def test_table(tmp_path: Path) -> None:
    """Names are data: commas, quotes and line ends in them stay."""
    names = ('a, "b"', "=1+1", "ü\nx")
    wrong = mistakes(answers(), images(names))
    write_mistakes(wrong, tmp_path / "mistakes.csv")
    with (tmp_path / "mistakes.csv").open(encoding="utf-8", newline="") as stream:
        head, *rows = csv.reader(stream)
    assert head == ["image", "true class", "taken for", "probability", "loss"]
    assert [row[:3] for row in rows] == [[m.name, m.true, m.predicted] for m in wrong]
    assert [float(value) for value in rows[0][3:]] == pytest.approx([0.9, -math.log(0.05)], abs=1e-6)


def some(count: int, names: tuple[str, ...]) -> list[Mistake]:
    return [
        Mistake(index=i, name=f"{names[i % len(names)]}/{i}.png", true=names[0], predicted=names[-1], probability=0.5,
                loss=9.0 - i / 10)
        for i in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("count", [1, 2, 7, 24, 30])
@pytest.mark.parametrize("names", [("cat", "dog"), HARD_NAMES])
def test_picture(count: int, names: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "mistakes.png"
    shown = images(names, [i % len(names) for i in range(count)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.mistakes(some(count, names), path, images=shown, title=names[0])
    assert is_picture(path, (600, 250))
    with Image.open(path) as image:
        assert image.height > 250 * min(4, -(-count // 6))


def test_no_mistake_no_picture(tmp_path: Path) -> None:
    """Nor that of an evaluation before, or its list of files that did not decode."""
    for name in ("mistakes.png", "left-out.csv"):
        (tmp_path / name).write_bytes(b"of an evaluation before")
    logits, targets = torch.eye(3)[TARGETS] * 9, np.array(TARGETS)
    result, right = score(logits, targets, ("a", "b", "c")), reliability(table(logits, targets), None)
    of = {"data": "d", "root": "d", "split": "val", "say": pytest.fail}
    written = write_evaluation(tmp_path, result, [], images(), right, **of)
    assert {path.name for path in tmp_path.iterdir()} == {*written}
    assert not {"mistakes.png", "left-out.csv"} & {*written}
