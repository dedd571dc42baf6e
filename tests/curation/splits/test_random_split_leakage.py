"""The leakage under a random split, against all possible test sets and against simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation.splits.random_split_leakage import random_split_leakage


def arrays(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    table = np.asarray(pairs, dtype=np.uint32).reshape(-1, 2)
    return table[:, 0], table[:, 1]


twin_worlds = st.integers(2, 7).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 3), min_size=n, max_size=n),
        st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=6),
        st.integers(1, n),
    )
)


@given(twin_worlds)
def test_the_expected_leakage_under_a_random_split_is_the_mean_over_all_possible_test_sets(world):
    label, pairs, size = world
    n = len(label)
    joined = {frozenset((label[a], label[b])) for a, b in pairs}
    exact, near = [], []
    for test in itertools.combinations(range(n), size):
        train = set(range(n)) - set(test)
        is_twin = [[label[t] == label[r] for r in train] for t in test]
        is_near = [[label[t] == label[r] or {label[t], label[r]} in joined for r in train] for t in test]
        exact.append(sum(map(any, is_twin)))
        near.append(sum(map(any, is_near)))
    leakage = random_split_leakage(n, {"near": arrays(pairs)}, test_rows=size, same=np.asarray(label), repeats=10)
    assert [record.measure for record in leakage] == ["exact", "near"]
    assert [record.expected for record in leakage] == pytest.approx([np.mean(exact), np.mean(near)])


def test_the_leakage_of_many_rows_lies_in_the_simulated_interval():
    n = 20_000
    label = np.arange(n) // 2
    chain = {"near": (np.arange(0, n - 2, 4), np.arange(2, n, 4))}
    leakage = random_split_leakage(n, chain, test_rows=8000, same=label, repeats=40)
    exact, near = leakage
    assert exact.share == pytest.approx((n - 8000) / (n - 1))
    assert all(record.low < record.share < record.high for record in leakage)
    assert near.low > exact.high
    assert leakage == random_split_leakage(n, chain, test_rows=8000, same=label, repeats=40)
