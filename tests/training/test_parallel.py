"""A share of a batch: the same images, mixed with the same partners, under the same masks as in the whole batch."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from timm.layers import DropPath

import convit
from convit.data import EpochSampler, seeded, share_of_batch
from convit.errors import InputError
from convit.training.distributed import ALONE, World, join
from convit.training.objective import Objective
from convit.training.parallel import DropPathOfRows, Rows, draw_by_rows


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_shares_are_the_batch(processes: int) -> None:
    shares = [share_of_batch(12, rank, processes) for rank in range(processes)]
    assert sorted(np.concatenate(shares).tolist()) == list(range(12))
    for rows in shares:
        assert (rows + rows[::-1] == 11).all()  # row i with row 11 - i, as mixup pairs them
        assert all(a < b for a, b in pairwise(rows.tolist()))


def test_sampler_of_a_share() -> None:
    """Of every whole batch its rows; what is left over at the end is nobody's. It begins anywhere."""
    every = EpochSampler(19, seed=5, repeats=2)
    parts = [EpochSampler(19, seed=5, repeats=2, share=(8, share_of_batch(8, rank, 2))) for rank in range(2)]
    for start in (0, 8):
        for sampler in (every, *parts):
            sampler.set_epoch(3, start=start)
        keys, (first, second) = list(every), [list(part) for part in parts]
        assert [len(part) for part in parts] == [len(first), len(second)] == [(16 - start) // 2] * 2
        assert first[:4] == [keys[0], keys[1], keys[6], keys[7]]
        assert second[:4] == keys[2:6]
        assert sorted(first + second) == sorted(keys[: 16 - start])


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0)])
def test_shares_are_mixed_as_the_batch(mixup: float, cutmix: float) -> None:
    objective = Objective(5, mixup=mixup, cutmix=cutmix, mix_prob=1.0, label_smoothing=0.1)
    images, target = torch.randn(8, 3, 6, 6), torch.arange(8) % 5
    with seeded(7):
        mixed, targets = objective.mix(images.clone(), target)
    assert not torch.equal(mixed, images)
    for rank in range(2):
        rows = World(rank, 2).rows(8)
        with seeded(7):
            part, its_targets = objective.mix(images[rows].clone(), target[rows])
        assert torch.equal(part, mixed[rows])
        assert torch.equal(its_targets, targets[rows])


def test_drop_path_of_rows() -> None:
    rows = Rows()
    ours, timms = DropPathOfRows(0.4, rows), DropPath(0.4)
    x = torch.randn(8, 5, 3)
    torch.manual_seed(2)
    expected = timms(x)
    assert {0.0, 1.0} == set((expected == 0).float().mean((1, 2)).tolist())
    rows.batch_size = 8
    for shown in ([0, 1, 6, 7], [2, 3, 4, 5], [5]):
        rows.shown = torch.tensor(shown)
        torch.manual_seed(2)
        assert torch.equal(ours(x[shown]), expected[shown])
    assert torch.equal(ours.eval()(x), x)


def test_every_drop_path_of_a_model_is_drawn_by_rows() -> None:
    model = convit.create_model("convit_micro_patch4_32", drop_path_rate=0.3)
    before = [module.drop_prob for module in model.modules() if isinstance(module, DropPath)]
    names = list(model.state_dict())
    rows = draw_by_rows(model)
    after = [module for module in model.modules() if isinstance(module, DropPathOfRows)]
    assert [module.drop_prob for module in after] == before
    assert len(after) == 3  # the first of four blocks has none
    assert all(module.rows is rows for module in after)
    assert list(model.state_dict()) == names


def test_run_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join("cpu") as world:
        assert world is ALONE
        assert world.rows(6).tolist() == [0, 1, 2, 3, 4, 5]
        assert (world.any(False), world.any(True)) == (False, True)
        assert world.from_main(lambda: 3) == world.in_turn(lambda: 3) == 3


def test_environment_that_is_incomplete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(InputError, match="RANK: got '' in the environment, expected the number"), join("cpu"):
        pass
