"""Bytes counted by hand, and against what a step allocates."""

from pathlib import Path
from typing import get_args

import pytest
import torch

from convit.choices import OptimizerName
from convit.training import memory
from convit.training.memory import activation_bytes, disk_bytes, free_bytes, held_bytes, size_words
from convit.training.run import train
from tests.training.small import newest_state, options
from tests.training.test_learner import learner

COUNTS = {"dark": 12, "light": 6}


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
    moments = [v.nbytes for state in of.optimizer.state.values() for name, v in state.items() if name != "step"]
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
    assert [size_words(n) for n in (0, 1023, 1024, 200 * 1024, 2**20, 2**41)] == [
        *("0 bytes", "1023 bytes", "1.0 KiB", "200 KiB", "1.0 MiB", "2048 GiB")
    ]


@pytest.mark.parametrize("images", [1, 3, 8, 12, 64])
def test_counting_changes_nothing_of_the_model(images: int, data: Path) -> None:
    """Batch norm counts the images that it sees: not these."""
    of = learner(data, norm="batch")
    before = {name: tensor.clone() for name, tensor in of.model.state_dict().items()}
    assert any("running" in name for name in before)
    assert activation_bytes(of, images) > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in of.model.state_dict().items())
    assert all(parameter.grad is None for parameter in of.model.parameters())


def test_room_for_what_a_run_keeps(data: Path, tmp_path: Path) -> None:
    """The model and two states are there at the end, and a third one for a moment."""
    need = disk_bytes(learner(data, opt="adamw"))
    train(options(data, tmp_path / "run", opt="adamw", epochs=2))
    state = (newest_state(tmp_path / "run") / "tensors.safetensors").stat().st_size
    model = (tmp_path / "run/model.safetensors").stat().st_size
    assert need == pytest.approx(model + 3 * state, rel=0.02)


def test_room_is_that_of_the_nearest_folder(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "not/there/yet") == pytest.approx(free_bytes(tmp_path), rel=0.1)
