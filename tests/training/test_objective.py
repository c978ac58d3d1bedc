"""The loss and its weights, at values worked out by hand."""

import math

import numpy as np
import pytest
import torch
from timm.loss import SoftTargetCrossEntropy
from torch import nn

from convit.data import seeded
from convit.training.objective import Objective, class_weights


@pytest.mark.parametrize(
    ("counts", "expected"),
    [([5, 5], [1, 1]), ([1, 3], [2, 2 / 3]), ([2, 4, 6], [2, 1, 2 / 3]), ([4, 0, 2], [0.75, 0, 1.5])],
)
def test_class_weights(counts: list[int], expected: list[float]) -> None:
    weights = class_weights(np.array(counts))
    assert weights.tolist() == pytest.approx(expected)
    assert float(weights @ torch.tensor(counts).float()) == pytest.approx(sum(counts))  # 1 in the mean of the images


def test_loss_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]])  # p = (1/4, 3/4) and (1/2, 1/2)
    target = torch.tensor([0, 1])
    assert Objective(2).loss(logits, target).item() == pytest.approx(math.log(4) + math.log(2))
    weighted = Objective(2, weights=torch.tensor([2.0, 0.5])).loss(logits, target)
    assert weighted.item() == pytest.approx(2 * math.log(4) + 0.5 * math.log(2))
    smooth = Objective(2, label_smoothing=0.2).loss(logits, target)  # targets (0.9, 0.1) and (0.1, 0.9)
    assert smooth.item() == pytest.approx(0.9 * math.log(4) + 0.1 * math.log(4 / 3) + math.log(2))


@pytest.mark.parametrize("weighted", [False, True])
def test_mixed_and_plain_targets_mean_the_same(weighted: bool) -> None:
    """Targets of mixup that happen to mix nothing are those that are smoothed by the loss."""
    weights = torch.tensor([0.5, 1.0, 3.0]) if weighted else None
    logits, target = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    mixing = Objective(3, weights=weights, mixup=1.0, label_smoothing=0.1, mix_prob=1e-12)
    with seeded(0):
        _, soft = mixing.mix(torch.rand(4, 3, 2, 2), target)
    assert soft.shape == (4, 3)
    plain = Objective(3, weights=weights, label_smoothing=0.1).loss(logits, target)
    assert mixing.loss(logits, soft).item() == pytest.approx(plain.item(), rel=1e-6)


def test_without_weights_it_is_the_usual_loss() -> None:
    logits, target = torch.randn(6, 5), torch.randint(5, (6,))
    expected = 6 * nn.CrossEntropyLoss(label_smoothing=0.1)(logits, target).item()
    assert Objective(5, label_smoothing=0.1).loss(logits, target).item() == pytest.approx(expected, rel=1e-6)
    soft = torch.rand(6, 5).softmax(-1)
    mixing = Objective(5, mixup=0.8, label_smoothing=0.1)
    expected = 6 * SoftTargetCrossEntropy()(logits, soft).item()
    assert mixing.loss(logits, soft).item() == pytest.approx(expected, rel=1e-6)


def test_nothing_to_mix() -> None:
    images, target = torch.rand(2, 3, 2, 2), torch.tensor([0, 1])
    for objective in (Objective(2), Objective(2, mixup=1.0, mix_prob=0.0)):
        mixed, its_target = objective.mix(images, target)
        assert mixed is images
        assert its_target is target
