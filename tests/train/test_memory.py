"""Bytes counted by hand, and a step's growth against what it allocates."""

from pathlib import Path

import pytest
import torch

from convit.train import memory
from convit.train.memory import activation_bytes, can_measure_pages, free_bytes, held_bytes, in_words, page_growth
from tests.train.small import photos
from tests.train.test_learner import learner

on_linux = pytest.mark.skipif(not can_measure_pages(), reason="reads Linux's /proc")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photos(tmp_path_factory.mktemp("data") / "two", {"dark": 12, "light": 6})


def test_what_is_held_between_steps(data: Path) -> None:
    """Weight, gradient and two moments of 4 bytes each, an average of 4 more, and nothing but weights if frozen."""
    plain = learner(data)
    parameters = sum(p.numel() for p in plain.model.parameters())
    assert held_bytes(plain) == 16 * parameters
    assert held_bytes(learner(data, ema_decay=0.9)) == 20 * parameters
    plain.model.freeze(2)
    trained = sum(p.numel() for p in plain.model.parameters() if p.requires_grad)
    assert 0 < trained < parameters
    assert held_bytes(plain) == 4 * parameters + 12 * trained


def test_held_is_what_a_step_leaves(data: Path) -> None:
    of = learner(data)
    of.step(torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 0, 1]), 0, 0, lambda loss: None)
    moments = [value.nbytes for state in of.optimizer.state.values() for name, value in state.items() if name != "step"]
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
        one.step(*batch, 0, 0, lambda loss: None)
    assert all(torch.equal(p, q) for p, q in zip(of.model.parameters(), other.model.parameters(), strict=True))


@on_linux
def test_growth_of_pages() -> None:
    size = 64 * 2**20
    assert 0.9 * size < page_growth(lambda: torch.ones(size // 4).sum()) < 1.5 * size
    assert page_growth(lambda: None) < 0.1 * size


@on_linux
def test_free_memory_is_no_more_than_the_container_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    alone = free_bytes()
    assert alone > 2**20
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert free_bytes() > 5000
    (tmp_path / "memory.max").write_text("5000\n")
    assert free_bytes() == 4000
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/memory.limit_in_bytes").write_text("600")
    (tmp_path / "memory/memory.usage_in_bytes").write_text("700")
    assert free_bytes() == 0


def test_words() -> None:
    assert [in_words(n) for n in (0, 1023, 1024, 200 * 1024, 2**20, 2**41)] == [
        *("0 bytes", "1023 bytes", "1.0 KiB", "200 KiB", "1.0 MiB", "2048 GiB"),
    ]
