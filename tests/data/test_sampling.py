"""Splits, subsets and orders: properties for any targets, purity, nesting, resume."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convit.data import EpochSampler, class_balanced_subset, permutation, shown, stratified_split
from convit.data.sampling import balanced_order, occurrence
from convit.errors import InputError

TARGETS = st.lists(st.integers(0, 5), min_size=1, max_size=80).map(np.array)
FRACTIONS = st.floats(0.01, 0.99)
SEEDS = st.integers(0, 2**40)


@given(TARGETS, FRACTIONS, SEEDS)
def test_split_gives_each_class_its_share(targets: np.ndarray, fraction: float, seed: int) -> None:
    kept, held_out = stratified_split(targets, fraction, seed)
    assert sorted([*kept, *held_out]) == list(range(len(targets)))
    for label in np.unique(targets):
        n, held = np.sum(targets == label), np.sum(targets[held_out] == label)
        if n == 1:
            assert held == 0
        else:
            assert 1 <= held <= n - 1
            assert held in (round(fraction * n), 1, n - 1)


@given(TARGETS, FRACTIONS, SEEDS)
def test_split_of_a_class_depends_on_no_other_class(targets: np.ndarray, fraction: float, seed: int) -> None:
    _, held_out = stratified_split(targets, fraction, seed)
    label = targets[0]
    alone = np.flatnonzero(targets == label)
    _, held_alone = stratified_split(targets[alone], fraction, seed)
    assert alone[held_alone].tolist() == [i for i in held_out if targets[i] == label]


@given(TARGETS, st.tuples(FRACTIONS, FRACTIONS).map(sorted), SEEDS)
def test_subsets_are_nested(targets: np.ndarray, fractions: list[float], seed: int) -> None:
    small, large = (set(class_balanced_subset(targets, fraction=f, seed=seed).tolist()) for f in fractions)
    assert small <= large
    assert set(targets[list(small)]) == set(targets)


def test_subset_counts_and_draw() -> None:
    targets = np.repeat([0, 1], [40, 20])
    half = class_balanced_subset(targets, fraction=0.5, seed=0)
    assert np.bincount(targets[half]).tolist() == [20, 10]
    ten = class_balanced_subset(targets, per_class=10, seed=0)
    assert np.bincount(targets[ten]).tolist() == [10, 10]
    assert ten[:10].tolist() != list(range(10))  # drawn, not the first ones
    assert ten.tolist() != class_balanced_subset(targets, per_class=10, seed=1).tolist()
    assert class_balanced_subset(targets, fraction=1, seed=3).tolist() == list(range(60))


def test_out_of_range_values_are_named() -> None:
    targets = np.array([0, 0, 1])
    for fraction in (0, 1, -0.5, float("nan")):
        with pytest.raises(InputError, match=rf"fraction: {fraction}; expected"):
            stratified_split(targets, fraction, 0)
    with pytest.raises(InputError, match=r"fraction: 1\.5; expected"):
        class_balanced_subset(targets, fraction=1.5, seed=0)
    with pytest.raises(InputError, match="per_class: 2; expected 1 to 1"):
        class_balanced_subset(targets, per_class=2, seed=0)
    with pytest.raises(InputError, match="expected exactly one"):
        class_balanced_subset(targets, seed=0)
    with pytest.raises(InputError, match="seed: -1; expected"):
        stratified_split(targets, 0.5, -1)
    with pytest.raises(InputError, match="seed: -1; expected"):
        EpochSampler(3, seed=-1)
    with pytest.raises(InputError, match="start 4; expected"):
        EpochSampler(3, seed=0).set_epoch(0, 4)
    for repeats in (0, 5):
        with pytest.raises(InputError, match=f"repeats: {repeats}; expected 1 to the 4 images"):
            EpochSampler(4, seed=0, repeats=repeats)


@given(st.integers(0, 200), SEEDS)
def test_permutation_is_one(n: int, seed: int) -> None:
    assert sorted(permutation(n, seed, 7).tolist()) == list(range(n))


def test_permutation_is_the_same_for_ever() -> None:
    """PCG64's bit stream is fixed, so these stay; saved runs and the digits' test split rely on it."""
    assert permutation(8, 0).tolist() == [3, 2, 1, 6, 0, 7, 4, 5]


def test_sampler_order_is_a_function_of_seed_and_epoch() -> None:
    sampler = EpochSampler(50, seed=1)
    first = list(sampler)
    assert first == list(sampler)
    assert sorted(index for _, index in first) == list(range(50))
    assert {epoch for epoch, _ in first} == {0}
    sampler.set_epoch(3)
    third = list(sampler)
    assert {epoch for epoch, _ in third} == {3}
    assert [i for _, i in third] != [i for _, i in first]
    assert [i for _, i in EpochSampler(50, seed=2)] != [i for _, i in first]
    fresh = EpochSampler(50, seed=1)
    fresh.set_epoch(3, start=20)
    assert list(fresh) == third[20:]
    assert len(fresh) == 30


def test_global_random_state_plays_no_part_and_is_untouched() -> None:
    np.random.seed(0)  # noqa: NPY002  the global state is what is tested
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = list(EpochSampler(20, seed=0))
    np.random.seed(1)  # noqa: NPY002
    assert list(EpochSampler(20, seed=0)) == first
    np.random.seed(0)  # noqa: NPY002
    stratified_split(np.zeros(9, int), 0.3, 0)
    class_balanced_subset(np.zeros(9, int), fraction=0.3, seed=0)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


@given(st.integers(1, 60), st.integers(1, 5), SEEDS, st.integers(0, 3))
def test_repeated_augmentation(length: int, repeats: int, seed: int, epoch: int) -> None:
    """DeiT's: of a random order the first images, each so many times in a row, each time another variation."""
    if repeats > length:
        return
    sampler = EpochSampler(length, seed=seed, repeats=repeats)
    sampler.set_epoch(epoch)
    keys = list(sampler)
    assert len(keys) == len(sampler) == shown(length, repeats) == length - length % repeats
    assert len(set(keys)) == len(keys)  # the seed of the augmentation: none twice
    order = permutation(length, seed, 3, epoch)[: length // repeats].tolist()
    assert [key[1] for key in keys] == [index for index in order for _ in range(repeats)]
    assert [key[2] if len(key) > 2 else 0 for key in keys] == list(range(repeats)) * len(order)
    assert {key[0] for key in keys} <= {epoch}
    sampler.set_epoch(epoch, start=len(keys) // 2)
    assert list(sampler) == keys[len(keys) // 2 :]


def test_repeated_augmentation_shows_other_images_each_epoch() -> None:
    sampler = EpochSampler(30, seed=0, repeats=3)
    epochs = [{key[1] for key in sampler.keys(epoch)} for epoch in range(20)]
    assert all(len(images) == 10 for images in epochs)
    assert set.union(*epochs) == set(range(30))
    assert epochs[0] != epochs[1]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 60), SEEDS)
def test_balanced_order(counts: list[int], count: int, seed: int) -> None:
    targets = np.repeat(np.arange(len(counts)) * 2, counts)  # every other class has no image
    order = balanced_order(targets, count, seed, 1)
    assert order.tolist() == balanced_order(targets, count, seed, 1).tolist()
    by_class = np.bincount(targets[order], minlength=2 * len(counts))[::2]
    assert by_class.sum() == count
    assert by_class.max() - by_class.min() <= 1
    for label, size in enumerate(counts):  # each class goes evenly through its own images
        times = np.bincount(order[targets[order] == 2 * label], minlength=len(targets))[targets == 2 * label]
        assert times.max() - times.min() <= 1
        assert times.sum() == by_class[label]
        assert len(times) == size


def test_balanced_sampling_by_hand() -> None:
    """Eight images of one class and two of another: five each, of the small class each twice and one a third time."""
    targets = np.array([0] * 8 + [1] * 2)
    sampler = EpochSampler(10, seed=0, balance=targets)
    for epoch in range(5):
        keys = sampler.keys(epoch)
        images = [key[1] for key in keys]
        assert np.bincount(targets[images]).tolist() == [5, 5]
        assert sorted(np.bincount(images, minlength=10)[8:].tolist()) == [2, 3]
        assert len(set(images) & set(range(8))) == 5
        assert len(set(keys)) == 10  # an image that is shown again is another variation of it
    assert sampler.keys(0) != [(0, *key[1:]) for key in sampler.keys(1)]
    extra = {tuple(np.bincount([key[1] for key in sampler.keys(epoch)], minlength=10)[8:]) for epoch in range(20)}
    assert extra == {(2, 3), (3, 2)}


def test_balanced_and_repeated() -> None:
    targets = np.array([0] * 8 + [1])
    keys = EpochSampler(9, seed=0, balance=targets, repeats=2).keys(0)
    assert np.bincount(targets[[key[1] for key in keys]]).tolist() == [4, 4]
    assert [key for key in keys if key[1] == 8][:4] == [(0, 8), (0, 8, 1), (0, 8, 2), (0, 8, 3)]
    assert len(set(keys)) == len(keys) == 8


@given(st.lists(st.integers(0, 4), max_size=20))
def test_occurrence(indices: list[int]) -> None:
    expected = [indices[:i].count(index) for i, index in enumerate(indices)]
    assert occurrence(np.array(indices, dtype=np.int64)).tolist() == expected
