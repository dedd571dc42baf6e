"""Bins over length, and how even a distribution over them is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation.balance.length_bins import bin_edges, length_record


def skewed(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).lognormal(3, 0.8, n).astype(np.uint32) + 1


@given(
    st.lists(st.integers(0, 3000), min_size=1, max_size=60), st.integers(2, 15), st.sampled_from(["log", "quantile"])
)
def test_every_length_is_in_exactly_one_bin(values, bins, spacing):
    edges = bin_edges(np.asarray(values), bins=bins, spacing=spacing)
    assert (np.diff(edges) > 0).all()
    assert len(edges) <= bins + 1
    assert edges[0] == min(values)
    assert edges[-1] == max(values) + 1


def test_log_bins_double_and_quantile_bins_hold_equally_many():
    assert bin_edges(np.asarray([1, 255]), bins=8, spacing="log").tolist() == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    at = bin_edges(skewed(10_000), bins=4, spacing="quantile")
    counts = np.histogram(skewed(10_000), at)[0]
    assert np.abs(counts - 2500).max() < 400


def test_entropy_of_a_distribution_is_in_nats_and_bins_are_its_exponential():
    distribution = length_record(np.asarray([5, 5, 0, 5, 5]), np.asarray([0.2] * 5))
    assert distribution.entropy == pytest.approx(math.log(4))
    assert distribution.effective_bins == pytest.approx(4)
    assert distribution.distance == pytest.approx(0.2)
