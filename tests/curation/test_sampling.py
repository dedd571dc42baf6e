"""Water-filling against bisection and against Hamilton's apportionment."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation.sampling import water_fill

entries = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 12)), min_size=1, max_size=8)


@given(entries, st.integers(0, 60))
def test_water_filling_shares_in_proportion_below_the_caps(table, total):
    weights, capacity = (np.asarray(column) for column in zip(*table, strict=True))
    shares = water_fill(weights.astype(float), capacity, total)
    usable = capacity[weights > 0].sum()
    assert shares.sum() == min(total, usable)
    assert (shares <= capacity).all()
    assert (shares[weights == 0] == 0).all()
    # Level by bisection: the exact water level of the continuous problem.
    low, high = 0.0, 1e3
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(capacity, middle * weights).sum() < shares.sum() else (low, middle)
    assert (np.abs(shares - np.minimum(capacity, high * weights)) < 1 + 1e-6).all()


@given(st.lists(st.integers(0, 50), min_size=1, max_size=10), st.data())
def test_water_filling_by_size_is_hamiltons_apportionment(sizes, data):
    total = data.draw(st.integers(0, sum(sizes)))
    whole = max(1, sum(sizes))
    expected = [total * size // whole for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda at: -(total * sizes[at] % whole))
    for at in by_remainder[: total - sum(expected)]:
        expected[at] += 1
    assert water_fill(np.asarray(sizes), np.asarray(sizes), total).tolist() == expected
