"""Bytes counted by hand, and against what a step allocates."""

from pathlib import Path
from typing import get_args

import pytest
import torch

from convit.choices import OptimizerName
from convit.training import memory
from convit.training.memory import activation_bytes, held_bytes, in_words
from tests.training.small import photos
from tests.training.test_learner import learner


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photos(tmp_path_factory.mktemp("data") / "two", {"dark": 12, "light": 6})


def test_what_is_held_between_steps(data: Path) -> None:
    """Weight, gradient and two moments of 4 bytes each, an average of 4 more, and nothing but weights if frozen."""
    plain = learner(data, opt="adamw")
    parameters = sum(p.numel() for p in plain.model.parameters())
    assert held_bytes(plain) == 16 * parameters
    assert held_bytes(learner(data, opt="adamw", ema_decay=0.9)) == 20 * parameters
    plain.model.freeze(2)
    trained = sum(p.numel() for p in plain.model.parameters() if p.requires_grad)
    assert 0 < trained < parameters
    assert held_bytes(plain) == 4 * parameters + 12 * trained


@pytest.mark.parametrize("opt", get_args(OptimizerName))
def test_held_is_what_a_step_leaves(opt: OptimizerName, data: Path) -> None:
    of = learner(data, opt=opt)
    of.step(torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 0, 1]), 0, 0)
    moments = [
        value.nbytes
        for state in of.optimizer.state.values()
        for name, value in state.items()
        if "_" in name and name != "use_muon"
    ]
    weights = [tensor.nbytes for p in of.model.parameters() for tensor in (p, p.grad) if tensor is not None]
    assert held_bytes(of) == sum(weights) + sum(moments)


def test_activations_are_a_straight_line(data: Path) -> None:
    of = learner(data)
    assert activation_bytes(of, 2) == memory._saved_bytes(of, 2) > 0
    assert activation_bytes(of, 16) == memory._saved_bytes(of, 16)
    assert activation_bytes(learner(data, accumulate=4), 64) == activation_bytes(of, 16)
    assert 0.4 < activation_bytes(learner(data, precision="bf16"), 64) / activation_bytes(of, 64) < 1


def test_counting_changes_nothing(data: Path) -> None:
    of, other = learner(data), learner(data)
    activation_bytes(of, 8)
    batch = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 0, 1])
    for one in (of, other):
        one.step(*batch, 0, 0)
    assert all(torch.equal(p, q) for p, q in zip(of.model.parameters(), other.model.parameters(), strict=True))


def test_words() -> None:
    assert [in_words(n) for n in (0, 1023, 1024, 200 * 1024, 2**20, 2**41)] == [
        *("0 bytes", "1023 bytes", "1.0 KiB", "200 KiB", "1.0 MiB", "2048 GiB"),
    ]
