"""Coverage against greedy choice by the book, in whole numbers, and against the best choice there is."""

from __future__ import annotations

from itertools import combinations

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation.embeddings.cosine import SCALE, lattice
from siftune.curation.selection import facility_location
from siftune.curation.selection.facility_location import cover, neighbours_for

#: Few distinct vectors, zero among them, so that rows repeat and gains tie.
worlds = st.integers(1, 20).flatmap(
    lambda n: st.tuples(
        st.lists(st.tuples(*[st.integers(-2, 2)] * 3), min_size=n, max_size=n),
        st.integers(1, n),
        st.lists(st.integers(0, 4), min_size=n, max_size=n),
        st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0]),
    )
)


def similarities(vectors: np.ndarray) -> list[list[int]]:
    """The similarity of every two rows in whole numbers, negative ones as 0."""
    rows = [[int(x) for x in row] for row in lattice(vectors)]
    return [[max(0, sum(x * y for x, y in zip(a, b, strict=True))) for b in rows] for a in rows]


def only_nearest(similar: list[list[int]], vectors: np.ndarray, count: int) -> list[list[int]]:
    """The similarities of candidates (lines) to those rows (columns) among whose `count` nearest rows they are."""
    products = lattice(vectors).astype(np.int64) @ lattice(vectors).astype(np.int64).T
    sparse = [[0] * len(similar) for _ in similar]
    for row in range(len(similar)):
        for candidate in sorted(range(len(similar)), key=lambda a: (-products[row, a], a))[:count]:
            sparse[candidate][row] = similar[candidate][row]
    return sparse


def plain_greedy(similar: list[list[int]], count: int, quality: list[float], alpha: float) -> list[int]:
    """argmax of (1 − α) · Σ_v [max(m_v, s(a, v)) − m_v] + α · q over all rows, anew for every choice."""
    chosen: list[int] = []
    closest = [0] * len(similar)
    for _ in similar[:count]:
        scores = {
            row: (1 - alpha) / SCALE**2 * sum(max(m, s) - m for m, s in zip(closest, similar[row], strict=True))
            + alpha * quality[row]
            for row in range(len(similar))
            if row not in chosen
        }
        best = max(scores, key=lambda row: (scores[row], -row))
        chosen.append(best)
        closest = [max(m, s) for m, s in zip(closest, similar[best], strict=True)]
    return chosen


@hypothesis.settings(max_examples=60)
@given(worlds)
def test_rows_are_those_of_plain_greedy(world):
    rows, count, marks, alpha = world
    vectors, quality = np.asarray(rows, np.float16), [mark / 4 for mark in marks]
    covering = cover(vectors, count, quality=np.asarray(quality), alpha=alpha)
    assert covering.chosen.tolist() == plain_greedy(similarities(vectors), count, quality, alpha)
    assert covering.neighbours is None


@hypothesis.settings(max_examples=60)
@given(worlds, st.integers(1, 6))
def test_with_nearest_neighbours_only_those_similarities_count(world, neighbours):
    rows, count, marks, alpha = world
    vectors, quality = np.asarray(rows, np.float16), [mark / 4 for mark in marks]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(facility_location, "_FEWEST_NEIGHBOURS", neighbours)
        patch.setattr(facility_location, "_MOST_NEIGHBOURS", neighbours)
        patch.setattr(facility_location, "EXACT_ROWS", 0)
        covering = cover(vectors, count, quality=np.asarray(quality), alpha=alpha)
    sparse = only_nearest(similarities(vectors), vectors, min(neighbours, len(rows)))
    assert covering.chosen.tolist() == plain_greedy(sparse, count, quality, alpha)
    assert covering.neighbours == min(neighbours, len(rows))


@hypothesis.settings(max_examples=60)
@given(worlds)
def test_gains_add_up_to_the_value_of_the_choice_and_never_grow(world):
    rows, count, _, _ = world
    similar = similarities(np.asarray(rows, np.float16))
    covering = cover(np.asarray(rows, np.float16), count)

    def value(chosen: tuple[int, ...] | list[int]) -> float:
        return sum(max(similar[a][v] for a in chosen) for v in range(len(rows))) / SCALE**2

    assert covering.gains.sum() == pytest.approx(value(covering.chosen.tolist()))
    assert (np.diff(covering.gains) <= 0).all()
    if count <= 3 and len(rows) <= 12:  # greedy reaches 1 - 1/e of the best choice of as many rows
        best = max(value(choice) for choice in combinations(range(len(rows)), count))
        assert covering.gains.sum() >= (1 - 1 / np.e) * best - 1e-9


def test_many_rows_are_those_of_plain_greedy():
    generator = np.random.default_rng(5)
    vectors = (np.repeat(generator.normal(size=(12, 16)), 40, axis=0) + generator.normal(size=(480, 16))).astype("f2")
    exact = lattice(vectors).astype(np.int64)
    similar, closest, chosen = np.maximum(exact @ exact.T, 0), np.zeros(480, np.int64), []
    for _ in range(120):
        gains = np.maximum(similar - closest, 0).sum(axis=1)
        gains[chosen] = -1
        chosen.append(int(gains.argmax()))
        closest = np.maximum(closest, similar[chosen[-1]])
    assert cover(vectors, 120).chosen.tolist() == chosen


def test_quality_decides_between_rows_that_cover_alike():
    vectors = np.asarray([[1, 0], [1, 0], [0, 1], [0, 1]], np.float16)
    quality = np.asarray([0.0, 1.0, 1.0, 0.0])
    assert cover(vectors, 2, quality=quality, alpha=0.1).chosen.tolist() == [1, 2]
    assert cover(vectors, 2).chosen.tolist() == [0, 2]


def test_the_fewer_rows_are_chosen_the_more_neighbours_count():
    assert neighbours_for(64_000, 32_000) == 64
    assert neighbours_for(64_000, 2_000) == 128
    assert neighbours_for(64_000, 10) == 256
    assert neighbours_for(20, 1) == 20
