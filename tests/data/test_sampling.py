"""Splits, subsets and orders: properties for any targets, purity, nesting, resume."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convit.data import EpochSampler, class_balanced_subset, open_source, permutation, some_classes, stratified_split
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


@given(st.integers(0, 200), SEEDS)
def test_permutation_is_one(n: int, seed: int) -> None:
    assert sorted(permutation(n, seed, 7).tolist()) == list(range(n))


def test_permutation_is_the_same_for_ever() -> None:
    """PCG64's bit stream is fixed, so these stay; saved runs and the digits' test part rely on it."""
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


def test_sampler_without_shuffle() -> None:
    sampler = EpochSampler(3, seed=0, shuffle=False)
    sampler.set_epoch(5)
    assert list(sampler) == [(5, 0), (5, 1), (5, 2)]


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


def test_some_classes_are_drawn_by_seed_and_nested() -> None:
    source = open_source("digits")
    draws = {count: some_classes(source, count, seed=3) for count in (2, 5, 10)}
    assert set(draws[2].class_names) < set(draws[5].class_names) < set(draws[10].class_names)
    assert draws[10].class_names == source.class_names
    assert some_classes(source, 5, seed=4).class_names != draws[5].class_names
    chosen, whole = draws[5].part("test"), source.part("test")
    assert list(draws[5].class_names) == sorted(draws[5].class_names)
    by_name = {name: source.class_names[target] for name, target in zip(whole.names, whole.targets, strict=True)}
    for name, target in zip(chosen.names, chosen.targets, strict=True):  # every image has kept its class
        assert by_name[name] == draws[5].class_names[target]
    assert len(chosen) == sum(label in draws[5].class_names for label in by_name.values())
    with pytest.raises(InputError, match="classes: got 11, expected 2 to 10, the classes of digits"):
        some_classes(source, 11, seed=0)
