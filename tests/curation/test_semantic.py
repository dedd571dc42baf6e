"""Semantic pairs against brute force, and what block sizes and indexes may not change."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.errors import UserError
from curation.measures import semantic
from curation.similarity.neighbours import nearest
from curation.similarity.preselect import partnered


def clustered(n: int, d: int, *, seed: int = 0, spread: float = 0.35) -> np.ndarray:
    """Vectors around a few centres, float16 and not of unit length, so that many pairs lie near any threshold."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(max(1, n // 8), d))
    points = centres[draw.integers(len(centres), size=n)] + spread * draw.normal(size=(n, d))
    return (points * draw.uniform(0.5, 2.0, size=(n, 1))).astype(np.float16)


def brute(vectors: np.ndarray, floor: float) -> dict[tuple[int, int], float]:
    full = vectors.astype(np.float64)
    norms = np.linalg.norm(full, axis=1)
    cosine = full @ full.T / np.where(norms > 0, np.outer(norms, norms), np.inf)
    a, b = np.nonzero(np.triu(cosine >= floor, 1))
    return {(int(x), int(y)): float(cosine[x, y]) for x, y in zip(a, b, strict=True)}


def told(found: semantic.Found) -> dict[tuple[int, int], float]:
    return {(int(a), int(b)): float(s) for a, b, s in zip(found.a, found.b, found.score, strict=True)}


@given(
    n=st.integers(0, 120),
    d=st.sampled_from([3, 64, 200, 384]),
    floor=st.sampled_from([0.3, 0.8, 0.9, 0.999]),
    seed=st.integers(0, 5),
)
def test_pairs_are_those_of_brute_force(n: int, d: int, floor: float, seed: int) -> None:
    vectors = clustered(n, d, seed=seed)
    found, truth = told(semantic.pairs(vectors, floor=floor)), brute(vectors, floor)
    assert found.keys() == truth.keys()
    assert all(abs(found[pair] - truth[pair]) < 1e-12 for pair in truth)


@pytest.mark.parametrize("spread", [0.35, 0.02])  # 0.02: most of a block is above the floor
def test_the_size_of_a_block_changes_nothing(monkeypatch: pytest.MonkeyPatch, spread: float) -> None:
    vectors = clustered(400, 384, seed=3, spread=spread)
    whole = semantic.pairs(vectors, floor=0.85)
    assert len(whole) > 100
    monkeypatch.setattr(semantic, "_BLOCK", 37)
    parts = semantic.pairs(vectors, floor=0.85)
    for name in ("a", "b", "score"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name))
    assert told(whole).keys() == brute(vectors, 0.85).keys()


def test_a_pair_exactly_at_the_floor_is_found_and_one_below_is_not() -> None:
    vectors = clustered(60, 300, seed=2)
    scores = sorted(brute(vectors, 0.2).values())
    exact = semantic.pairs(vectors, floor=0.2).score
    middle = float(np.sort(exact)[len(exact) // 2])
    at = semantic.pairs(vectors, floor=middle)
    above = semantic.pairs(vectors, floor=float(np.nextafter(middle, 2)))
    assert len(scores) == len(exact)
    assert (at.score == middle).any()
    assert len(above) == len(at) - int((at.score == middle).sum())


def test_the_same_text_has_a_cosine_of_one_and_an_empty_vector_none() -> None:
    vectors = np.concatenate([clustered(3, 384)[:1]] * 2 + [np.zeros((2, 384), np.float16)])
    found = semantic.pairs(vectors, floor=0.5)
    assert told(found) == {(0, 1): 1.0}


def test_positions_are_in_order_and_counted_in_uint32() -> None:
    found = semantic.pairs(clustered(200, 384), floor=0.8)
    assert found.a.dtype == found.b.dtype == np.uint32
    assert found.score.dtype == np.float64
    assert (found.a < found.b).all()
    assert np.array_equal(np.lexsort((found.b, found.a)), np.arange(len(found)))
    assert found.method == "exact"
    assert found.recall == 1.0


def test_beyond_the_exact_rows_an_index_proposes_and_its_recall_is_measured() -> None:
    pytest.importorskip("faiss")
    vectors = clustered(3000, 96, seed=4)
    truth = brute(vectors, 0.9)
    found = semantic.pairs(vectors, floor=0.9, exact_rows=1000)
    assert "IVF" in found.method
    assert found.sampled == 1000
    assert found.recall >= 0.99
    assert told(found).keys() <= truth.keys()
    assert len(found) >= 0.98 * len(truth)
    assert len({*zip(found.a.tolist(), found.b.tolist(), strict=True)}) == len(found)
    again = semantic.pairs(vectors, floor=0.9, exact_rows=1000)
    assert np.array_equal(found.a, again.a)
    assert np.array_equal(found.b, again.b)
    assert np.array_equal(found.score, again.score)


def test_too_many_pairs_are_refused_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semantic, "_MOST_PAIRS", 10)
    with pytest.raises(UserError, match="floor"):
        semantic.pairs(np.ones((50, 8), np.float16), floor=0.9)


@given(n=st.integers(0, 30), m=st.integers(0, 90), k=st.integers(1, 7), seed=st.integers(0, 3))
def test_nearest_is_brute_force_with_ties_in_order(n: int, m: int, k: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    queries, base = draw.integers(-2, 3, size=(n, 4)), draw.integers(-2, 3, size=(m, 4))  # full of ties
    places, scores = nearest(queries.astype(np.float16), base.astype(np.float16), k=k)
    norms = np.outer(np.linalg.norm(queries, axis=1), np.linalg.norm(base, axis=1))
    cosine = queries @ base.T / np.where(norms > 0, norms, np.inf)
    order = np.argsort(-np.round(cosine, 9), axis=1, kind="stable")[:, : min(k, m)]
    assert places.shape == scores.shape == (n, min(k, m))
    assert np.allclose(scores, np.take_along_axis(cosine, order, axis=1), atol=1e-9)
    assert np.array_equal(np.sort(np.round(scores, 9), axis=1)[:, ::-1], np.round(scores, 9))
    assert all(len(set(row)) == len(row) for row in places.tolist())


def test_nearest_does_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    from curation.similarity import neighbours

    vectors = clustered(500, 384)
    whole = nearest(vectors[:50], vectors, k=6)
    monkeypatch.setattr(neighbours, "_BLOCK", 11)
    parts = nearest(vectors[:50], vectors, k=6)
    assert np.array_equal(whole[0], parts[0])
    assert np.array_equal(whole[1], parts[1])
    assert np.array_equal(whole[0][:, 0], np.arange(50))


class Table:
    """An encoder that knows the vector of each text, and remembers what it was asked."""

    def __init__(self, vectors: dict[str, np.ndarray]) -> None:
        self.vectors = vectors
        self.asked: set[str] = set()

    def __call__(self, texts: Iterable[pl.Series], *, progress: object = None) -> np.ndarray:
        every = [text for series in texts for text in series]
        self.asked |= set(every)
        return np.stack([self.vectors[text] for text in every]).astype(np.float16)


def test_preselection_spares_texts_that_share_no_rare_words() -> None:
    draw = np.random.default_rng(0)
    twins = [f"apple{n} pear{n} plum{n} grape{n} the" for n in range(30)] + [
        f"the plum{n} and pear{n} grape{n} apple{n}" for n in range(30)
    ]
    alone = [f"the lonely{n} word{n} stands{n} here{n}" for n in range(900)]
    meanings = draw.normal(size=(930, 64))
    embed = Table(dict(zip([*twins, *alone], [*meanings[:30], *meanings[:30], *meanings[30:]], strict=True)))
    found = semantic.preselected_pairs(pl.Series([*alone, *twins]), embed, floor=0.9)
    assert told(found).keys() == {(900 + n, 930 + n) for n in range(30)}
    assert set(twins) <= embed.asked
    assert len(embed.asked) < 500
    assert found.sampled == 256
    assert "960 rows" in found.method


def test_preselection_that_loses_pairs_is_noticed_and_undone() -> None:
    same = np.random.default_rng(0).normal(size=(40, 64))
    texts = [f"word{n} stands{n} here{n} by{n} itself{n}" for n in range(80)]
    embed = Table(dict(zip(texts, [*same, *same], strict=True)))
    found = semantic.preselected_pairs(pl.Series(texts), embed, floor=0.9)
    assert told(found).keys() == {(n, 40 + n) for n in range(40)}
    assert found.method == "exact"


def test_word_bags_keep_cosines_roughly_and_empty_texts_have_no_partner() -> None:
    texts = pl.Series(["red green blue", "red green blue!", "one two three", "", ""])
    assert partnered(texts).tolist() == [True, True, False, False, False]
    assert partnered(pl.Series(["only one"])).tolist() == [False]
    assert partnered(pl.Series([], dtype=pl.String)).tolist() == []
