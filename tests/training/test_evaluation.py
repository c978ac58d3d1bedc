"""Figures worked out by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from convit.data import Preprocess, open_source
from convit.training.distributed import World
from convit.training.evaluation import evaluate, logits_of, score
from tests.training.small import photos


def logits_for(predictions: list[list[int]], classes: int) -> torch.Tensor:
    """Logits that rank the classes of each row as listed, the rest below."""
    logits = torch.full((len(predictions), classes), -10.0)
    for row, ranked in zip(logits, predictions, strict=True):
        for place, label in enumerate(ranked):
            row[label] = 10.0 - place
    return logits


def test_three_classes_by_hand() -> None:
    # true:      0    0    0    1    1    2;  taken for: 0 0 1 1 0 1
    targets = np.array([0, 0, 0, 1, 1, 2])
    result = score(logits_for([[0], [0], [1], [1], [0], [1]], 3), targets, ("a", "b", "c"))
    assert result.confusion.tolist() == [[2, 1, 0], [1, 1, 0], [0, 1, 0]]
    np.testing.assert_allclose(result.precision, [2 / 3, 1 / 3, 0])
    np.testing.assert_allclose(result.recall, [2 / 3, 1 / 2, 0])
    assert result.top1 == pytest.approx(50)
    assert result.top5 is None  # of three classes it would always be 100%
    assert result.num_images == 6


def test_top5_of_seven_classes() -> None:
    ranked = [[0, 1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 0, 5, 6], [1, 2, 3, 4, 5, 0, 6], [6, 5, 4, 3, 2, 1, 0]]
    result = score(logits_for(ranked, 7), np.zeros(4, np.int64), tuple("abcdefg"))
    assert (result.top1, result.top5) == (25, 50)
    assert result.confusion[0].tolist() == [1, 2, 0, 0, 0, 0, 1]


def test_absent_class() -> None:
    result = score(logits_for([[0], [2], [2]], 3), np.array([0, 0, 2]), ("a", "b", "c"))
    assert result.confusion.tolist() == [[1, 0, 1], [0, 0, 0], [0, 0, 1]]
    assert result.precision.tolist() == [1, 0, 0.5]
    assert result.recall.tolist() == [0.5, 0, 1]


def test_loss_is_the_mean_cross_entropy() -> None:
    logits = torch.tensor([[3.0, 1.0], [0.0, 0.0]]).log()  # probabilities 3/4, 1/4
    logits[1] = torch.tensor([1.0, 1.0]).log()
    result = score(logits, np.array([1, 0]), ("a", "b"))
    assert result.loss == pytest.approx((np.log(4) + np.log(2)) / 2, rel=1e-6)


def test_to_dict_is_json() -> None:
    result = score(logits_for([[0], [0]], 2), np.array([0, 1]), ("ä", "b"))
    document = json.loads(json.dumps(result.to_dict()))
    assert document["images"] == 2
    assert document["confusion"] == [[1, 0], [1, 0]]
    low, high = document["classes"][0].pop("recall_interval")  # of one image that is right
    assert (round(low, 3), high) == (0.207, 1.0)
    assert document["classes"][0] == {"name": "ä", "images": 1, "precision": 0.5, "recall": 1.0}


class Brightness(nn.Module):
    """Class 1 for a bright picture; counts its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bright = x.mean((1, 2, 3)) + self.bias
        return torch.stack((-bright, bright), dim=1)


class Two(World):
    """A process of two, whose other one has these logits to add."""

    def __init__(self, rank: int, other: torch.Tensor) -> None:
        super().__init__(rank, 2)
        self.other = other

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor + self.other


@pytest.mark.parametrize("rank", [0, 1])
def test_two_processes_have_every_other_image(rank: int, tmp_path: Path) -> None:
    images = open_source(str(photos(tmp_path / "data", {"dark": 3, "light": 4}))).splits["all"]
    whole = logits_of(Brightness(), images, Preprocess(image_size=(8, 8)))
    other, seen = whole.clone(), list[int]()
    other[rank::2] = 0
    world = Two(rank, other)
    found = logits_of(
        Brightness(), images, Preprocess(image_size=(8, 8)), batch_size=3, on_batch=seen.append, world=world
    )
    torch.testing.assert_close(found, whole)
    assert seen == ([3, 1] if rank == 0 else [3, 0])


@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_image_once_whatever_the_batch(batch_size: int, precision: str, tmp_path: Path) -> None:
    images = open_source(str(photos(tmp_path / "data", {"dark": 3, "light": 4}))).splits["all"]
    seen: list[int] = []
    model = Brightness().train()
    result = evaluate(
        model, images, Preprocess(image_size=(8, 8)), batch_size=batch_size, precision=precision, on_batch=seen.append
    )
    assert result.confusion.tolist() == [[3, 0], [0, 4]]
    assert sum(seen) == 7
    assert max(seen) == min(batch_size, 7)
    assert not model.training
