"""Farthest-first and its blocks against the greedy choice in whole numbers, and coverage by clusters."""

from __future__ import annotations

import hypothesis
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation.balance.coverage import covering_rows, farthest_first
from siftune.curation.embeddings.cosine import lattice

points = st.integers(1, 24).flatmap(
    lambda n: st.tuples(st.lists(st.tuples(*[st.integers(-3, 3)] * 3), min_size=n, max_size=n), st.integers(1, n))
)


def greedy(vectors: np.ndarray, count: int, first: list[int]) -> list[int]:
    """Farthest-first by the book, in whole numbers."""
    rows = [[int(x) for x in row] for row in lattice(vectors)]
    chosen = list(first)
    while len(chosen) < count:
        rest = [i for i in range(len(rows)) if i not in chosen]
        chosen.append(
            min(rest, key=lambda i: max(sum(x * y for x, y in zip(rows[i], rows[c], strict=True)) for c in chosen))
        )
    return chosen


@hypothesis.settings(max_examples=300)
@given(points, st.sampled_from([2, 3, 100]))
def test_blocked_farthest_first_is_the_greedy_choice(world, candidates):
    rows, count = world
    vectors = np.asarray(rows, np.float16)
    keys = np.arange(len(rows), dtype=np.uint64)[::-1].copy()
    chosen = covering_rows(vectors, count, keys=keys, candidates=candidates)
    assert chosen.tolist() == greedy(vectors, count, [len(rows) - 1])


def test_blocked_farthest_first_on_many_rows_is_the_plain_loop():
    generator = np.random.default_rng(3)
    vectors = generator.normal(size=(3000, 24)).astype(np.float16)
    vectors[100:200] = vectors[:100]
    first = np.asarray([17, 5])
    traversal = farthest_first(lattice(vectors), 600, first=first)
    exact = lattice(vectors).astype(np.int64)
    nearest = (exact @ exact[first].T).max(axis=1)
    chosen = first.tolist()
    while len(chosen) < 600:
        nearest[chosen] = 1 << 40
        chosen.append(int(nearest.argmin()))
        nearest = np.maximum(nearest, exact @ exact[chosen[-1]])
    assert traversal.tolist() == chosen


def test_large_bins_are_covered_cluster_by_cluster():
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(4, 32))
    topic = np.repeat(np.arange(4), [5000, 2500, 450, 50])
    vectors = (centres[topic] + 0.1 * generator.normal(size=(8000, 32))).astype(np.float16)
    keys = generator.permutation(8000).astype(np.uint64)
    first = np.asarray([7, 7999])
    rows = covering_rows(vectors, 400, keys=keys, first=first, most_work=50_000_000)
    assert len(set(rows.tolist())) == 400
    assert rows[:2].tolist() == first.tolist()
    random_counts = np.bincount(topic[np.argsort(keys)[:400]], minlength=4)
    covered = np.bincount(topic[rows], minlength=4)
    assert covered.min() > 4 * random_counts.min()
    same = np.ones((500, 8), np.float16)
    assert len(set(covering_rows(same, 30, keys=keys[:500], most_work=10).tolist())) == 30
