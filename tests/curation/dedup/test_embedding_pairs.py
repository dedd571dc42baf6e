"""Semantic pairs against brute force, and what block sizes and indexes may not change."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation.dedup import embedding_pairs, preselect
from siftune.curation.embeddings.knn import nearest
from siftune.curation.errors import UserError
from siftune.curation.text import ngrams


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


def scores_by_pair(result: embedding_pairs.EmbeddingPairs) -> dict[tuple[int, int], float]:
    return {(int(a), int(b)): float(s) for a, b, s in zip(result.a, result.b, result.score, strict=True)}


@given(
    n=st.integers(0, 120),
    d=st.sampled_from([3, 64, 200, 384]),
    floor=st.sampled_from([0.3, 0.8, 0.9, 0.999]),
    seed=st.integers(0, 5),
)
def test_pairs_are_those_of_brute_force(n: int, d: int, floor: float, seed: int) -> None:
    vectors = clustered(n, d, seed=seed)
    result, truth = scores_by_pair(embedding_pairs.cosine_pairs(vectors, floor=floor)), brute(vectors, floor)
    assert result.keys() == truth.keys()
    assert all(abs(result[pair] - truth[pair]) < 1e-12 for pair in truth)


@pytest.mark.parametrize("spread", [0.35, 0.02])  # 0.02: most of a block is above the floor
def test_the_size_of_a_block_changes_nothing(monkeypatch: pytest.MonkeyPatch, spread: float) -> None:
    vectors = clustered(400, 384, seed=3, spread=spread)
    unblocked = embedding_pairs.cosine_pairs(vectors, floor=0.85)
    assert len(unblocked) > 100
    monkeypatch.setattr(embedding_pairs, "BLOCK_ROWS", 37)
    parts = embedding_pairs.cosine_pairs(vectors, floor=0.85)
    for name in ("a", "b", "score"):
        assert np.array_equal(getattr(unblocked, name), getattr(parts, name))
    assert scores_by_pair(unblocked).keys() == brute(vectors, 0.85).keys()


def test_a_pair_exactly_at_the_floor_is_found_and_one_below_is_not() -> None:
    vectors = clustered(60, 300, seed=2)
    scores = sorted(brute(vectors, 0.2).values())
    exact = embedding_pairs.cosine_pairs(vectors, floor=0.2).score
    middle = float(np.sort(exact)[len(exact) // 2])
    at = embedding_pairs.cosine_pairs(vectors, floor=middle)
    above = embedding_pairs.cosine_pairs(vectors, floor=float(np.nextafter(middle, 2)))
    assert len(scores) == len(exact)
    assert (at.score == middle).any()
    assert len(above) == len(at) - int((at.score == middle).sum())


def test_the_same_text_has_a_cosine_of_one_and_an_empty_vector_none() -> None:
    vectors = np.concatenate([clustered(3, 384)[:1]] * 2 + [np.zeros((2, 384), np.float16)])
    result = embedding_pairs.cosine_pairs(vectors, floor=0.5)
    assert scores_by_pair(result) == {(0, 1): 1.0}


def test_positions_are_in_order_and_counted_in_uint32() -> None:
    result = embedding_pairs.cosine_pairs(clustered(200, 384), floor=0.8)
    assert result.a.dtype == result.b.dtype == np.uint32
    assert result.score.dtype == np.float64
    assert (result.a < result.b).all()
    assert np.array_equal(np.lexsort((result.b, result.a)), np.arange(len(result)))
    assert result.method == "exact"
    assert result.recall == 1.0


def test_beyond_the_exact_rows_an_index_proposes_and_its_recall_is_measured() -> None:
    pytest.importorskip("faiss")
    vectors = clustered(3000, 96, seed=4)
    truth = brute(vectors, 0.9)
    result = embedding_pairs.cosine_pairs(vectors, floor=0.9, exact_rows=1000)
    assert "IVF" in result.method
    assert result.sampled == 1000
    assert result.recall >= 0.99
    assert scores_by_pair(result).keys() <= truth.keys()
    assert len(result) >= 0.98 * len(truth)
    assert len({*zip(result.a.tolist(), result.b.tolist(), strict=True)}) == len(result)
    again = embedding_pairs.cosine_pairs(vectors, floor=0.9, exact_rows=1000)
    assert np.array_equal(result.a, again.a)
    assert np.array_equal(result.b, again.b)
    assert np.array_equal(result.score, again.score)


def test_too_many_pairs_are_refused_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_pairs, "MAX_PAIRS", 10)
    with pytest.raises(UserError, match="floor"):
        embedding_pairs.cosine_pairs(np.ones((50, 8), np.float16), floor=0.9)


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
    from siftune.curation.embeddings import knn

    vectors = clustered(500, 384)
    unblocked = nearest(vectors[:50], vectors, k=6)
    monkeypatch.setattr(knn, "BLOCK_ROWS", 11)
    parts = nearest(vectors[:50], vectors, k=6)
    assert np.array_equal(unblocked[0], parts[0])
    assert np.array_equal(unblocked[1], parts[1])
    assert np.array_equal(unblocked[0][:, 0], np.arange(50))


class Table:
    """An encoder that knows the vector of each text, and remembers which texts it encoded."""

    def __init__(self, vectors: dict[str, np.ndarray]) -> None:
        self.vectors = vectors
        self.encoded: set[str] = set()

    def __call__(self, texts: Iterable[pl.Series], *, progress: object = None) -> np.ndarray:
        batch = [text for series in texts for text in series]
        self.encoded |= set(batch)
        return np.stack([self.vectors[text] for text in batch]).astype(np.float16)


@pytest.mark.parametrize("block", [7, 64, 2048])
def test_texts_with_a_neighbour_are_those_of_brute_force(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(embedding_pairs, "BLOCK_ROWS", block)
    draw = np.random.default_rng(5)
    vectors = np.concatenate([clustered(120, 384), draw.normal(size=(150, 384)), np.zeros((2, 384))])
    texts = [f"text {n}" for n in range(len(vectors))]
    embed = Table(dict(zip(texts, vectors, strict=True)))
    chosen = draw.permutation(len(texts))
    listed = pl.Series([*(texts[n] for n in chosen), texts[130], texts[271]])  # two stand there twice
    stored = embed([listed]).astype(np.float64)
    cosine = stored @ stored.T / np.maximum(np.outer(*[np.linalg.norm(stored, axis=1)] * 2), 1e-9)
    np.fill_diagonal(cosine, 0)
    floor = float(np.median(cosine[: len(texts)].max(axis=1)))
    equal = np.array([listed.to_list().count(text) > 1 for text in listed])
    expected = (cosine >= floor).any(axis=1) | equal
    has_neighbour = embedding_pairs.has_neighbour(listed, embed, floor=floor)
    assert np.array_equal(has_neighbour, expected)
    assert 0 < expected.sum() < len(expected)


def test_a_text_alone_has_no_neighbour() -> None:
    embed = Table({"one": np.ones(8), "": np.ones(8)})
    assert embedding_pairs.has_neighbour(pl.Series(["one"]), embed, floor=0.5).tolist() == [False]
    assert (
        embedding_pairs.has_neighbour(pl.Series([None, ""], dtype=pl.String), embed, floor=0.5).tolist() == [True] * 2
    )


def alike_in_words(*, groups: int, size: int, alone: int) -> tuple[pl.Series, Table]:
    """Groups of texts with the same rare words and the same meaning, and texts with words and a meaning of their own;
    but the last two mean the same.
    """
    draw = np.random.default_rng(0)
    words = [
        draw.permuted(np.full((size, 4), [f"{w}{g}" for w in ("apple", "pear", "plum", "fig")]), axis=1)
        for g in range(groups)
    ]
    twins = [f"the {' '.join(row)} {chr(97 + place)}" for group in words for place, row in enumerate(group)]
    texts = twins + [f"the lonely{n} word{n} stands{n} here{n}" for n in range(alone)]
    meanings = draw.normal(size=(groups + alone, 64))
    meanings[-1] = meanings[-2]
    vectors = np.concatenate([np.repeat(meanings[:groups], size, axis=0), meanings[groups:]])
    shuffled = draw.permutation(len(texts))
    return pl.Series(texts).gather(shuffled), Table(dict(zip(texts, vectors, strict=True)))


def test_preselection_spares_texts_that_share_no_rare_words_and_never_boasts() -> None:
    texts, embed = alike_in_words(groups=60, size=20, alone=2800)
    result = embedding_pairs.preselected_pairs(texts, embed, floor=0.9)
    encoded = len(embed.encoded)
    truth = embedding_pairs.cosine_pairs(embed([texts]), floor=0.9)
    assert len(truth) == 60 * 190 + 1
    assert scores_by_pair(result).items() < scores_by_pair(truth).items()
    assert np.array_equal(np.lexsort((result.b, result.a)), np.arange(len(result)))
    assert encoded == 1600
    assert result.method == "exact, among 1600 of 4000 rows"
    assert result.sampled == 400
    assert 0.99 <= result.recall <= len(result) / len(truth) < 1


def test_preselection_does_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    texts, embed = alike_in_words(groups=30, size=20, alone=1800)
    unblocked, encoded = embedding_pairs.preselected_pairs(texts, embed, floor=0.9), embed.encoded
    monkeypatch.setattr(embedding_pairs, "BLOCK_ROWS", 301)
    monkeypatch.setattr(preselect, "BLOCK_ROWS", 457)
    embed.encoded = set()
    parts = embedding_pairs.preselected_pairs(texts, embed, floor=0.9)
    assert embed.encoded == encoded
    assert len(encoded) < len(texts)
    assert parts.recall == unblocked.recall
    for name in ("a", "b", "score"):
        assert np.array_equal(getattr(unblocked, name), getattr(parts, name))


def test_paraphrases_that_share_no_words_make_it_encode_every_text() -> None:
    same = np.random.default_rng(0).normal(size=(1200, 64))
    texts = [f"word{n} stands{n} here{n} by{n} itself{n}" for n in range(2400)]
    embed = Table(dict(zip(texts, [*same, *same], strict=True)))
    result = embedding_pairs.preselected_pairs(pl.Series(texts), embed, floor=0.9)
    assert scores_by_pair(result).keys() == {(n, 1200 + n) for n in range(1200)}
    assert (result.method, result.recall) == ("exact", 1.0)


@pytest.mark.parametrize(("groups", "size", "alone"), [(4, 2, 2400), (10, 20, 800), (0, 1, 2)])
def test_with_few_pairs_or_few_texts_every_text_is_encoded(groups: int, size: int, alone: int) -> None:
    texts, embed = alike_in_words(groups=groups, size=size, alone=alone)
    result = embedding_pairs.preselected_pairs(texts, embed, floor=0.9)
    assert embed.encoded == set(texts)
    assert (
        scores_by_pair(result).keys() == scores_by_pair(embedding_pairs.cosine_pairs(embed([texts]), floor=0.9)).keys()
    )
    assert result.method == "exact"


@pytest.mark.parametrize("block", [4096, 3])
def test_overlaps_are_cosines_with_the_closest_other_text(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(preselect, "BLOCK_ROWS", block)
    texts = pl.Series(["red green blue", "red green blue!", "one two three", "", "", "one two", "four blue five six"])
    bags = preselect.bags(ngrams.split_words(texts)).astype(np.float64)
    norms = np.linalg.norm(bags, axis=1)
    cosine = bags @ bags.T / np.maximum(np.outer(norms, norms), 1e-9)
    np.fill_diagonal(cosine, -1)
    assert np.allclose(preselect.overlaps(texts), cosine.max(axis=1), atol=0.002)
    assert preselect.overlaps(pl.Series(["only one"])).tolist() == [-1]
    assert preselect.overlaps(pl.Series([], dtype=pl.String)).tolist() == []
