"""The exact search across two splits against plain Python sets and sums."""

from __future__ import annotations

import gzip
import json
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation.splits.cross_search import (
    CrossPairs,
    cosine_cross_pairs,
    exact_cross_pairs,
    jaccard_cross_pairs,
)
from tests.curation.splits.brute_force import jaccard, shingles


def cosine(one: np.ndarray, two: np.ndarray) -> float:
    dot = math.fsum(float(x) * float(y) for x, y in zip(one, two, strict=True))
    norm = math.sqrt(math.fsum(float(x) ** 2 for x in one) * math.fsum(float(y) ** 2 for y in two))
    return dot / norm if norm else 0.0


def scores_of(result: CrossPairs) -> dict[tuple[int, int], float]:
    return dict(zip(zip(result.a.tolist(), result.b.tolist(), strict=True), result.score.tolist(), strict=True))


words = st.lists(st.sampled_from(["a", "b", "c", "D", "e!", "7"]), max_size=9).map(" ".join)
texts = st.lists(words, max_size=12)


@given(texts, texts, st.integers(1, 4), st.sampled_from([0.2, 0.5, 1.0]))
def test_jaccard_of_every_pair_is_what_python_sets_say(left, right, size, threshold):
    batches = [pl.Series(left[i : i + 4], dtype=pl.String) for i in range(0, len(left), 4)]
    result = jaccard_cross_pairs(batches, pl.Series(right, dtype=pl.String), shingle=size, threshold=threshold)
    scores = {(i, j): jaccard(x, y, size) for i, x in enumerate(left) for j, y in enumerate(right)}
    assert scores_of(result) == {pair: score for pair, score in scores.items() if score >= threshold}
    assert result.comparisons == len(scores)
    best = max(scores.values(), default=0.0)
    assert (result.highest or 0.0) == best
    if best:
        assert result.highest_pair == min(pair for pair, score in scores.items() if score == best)
    batches = [pl.Series(right[i : i + 3], dtype=pl.String) for i in range(0, len(right), 3)]
    held = pl.Series(left, dtype=pl.String)
    swapped = jaccard_cross_pairs(batches, held, shingle=size, threshold=threshold, swapped=True)
    assert scores_of(swapped) == scores_of(result)
    assert (swapped.highest, swapped.highest_pair) == (result.highest, result.highest_pair)


def test_blocks_do_not_change_the_pairs():
    generator = np.random.default_rng(0)
    rows = [" ".join(generator.choice(list("abcdef"), 8)) for _ in range(60)]
    vectors = generator.normal(size=(60, 5)).astype(np.float16)
    left, right = pl.Series(rows[:40]), pl.Series(rows[40:])
    # 50 cells are two rows of the left side at a time.
    for one, two in (
        [jaccard_cross_pairs([left], right, shingle=2, threshold=0.3, **block) for block in ({}, {"block_cells": 50})],
        [cosine_cross_pairs(vectors[:40], vectors[40:], threshold=0.6, **block) for block in ({}, {"block_cells": 50})],
    ):
        assert len(one.a) > 0
        assert one.highest_pair == two.highest_pair
        for name in ("a", "b", "score"):
            assert getattr(one, name).tolist() == getattr(two, name).tolist()


matrices = st.lists(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), min_size=3, max_size=3), min_size=0, max_size=8)


@given(matrices, matrices, st.sampled_from([0.5, 0.9, 1.0]))
def test_cosine_of_every_pair_is_what_plain_sums_say(left, right, threshold):
    one, two = (np.asarray(m, dtype=np.float16).reshape(-1, 3) for m in (left, right))
    result = cosine_cross_pairs(one, two, threshold=threshold - 1e-9)
    scores = {(i, j): cosine(x, y) for i, x in enumerate(one) for j, y in enumerate(two)}
    expected = {pair for pair, score in scores.items() if score >= threshold - 1e-9}
    assert set(zip(result.a.tolist(), result.b.tolist(), strict=True)) == expected
    assert result.score.tolist() == pytest.approx([scores[pair] for pair in sorted(expected)])
    assert (result.highest is None) == (not scores)
    if scores:
        assert result.highest == pytest.approx(max(scores.values()))


def test_equal_normal_forms_are_exact_twins_and_empty_texts_are_not():
    left = pl.Series(["What  is\nthis?", "", "Other"])
    result = exact_cross_pairs([left[:1], left[1:]], pl.Series(["", "what is this?", " What is this? "]))
    assert (result.a.tolist(), result.b.tolist(), result.highest_pair) == ([0], [2], (0, 2))
    swapped = exact_cross_pairs([pl.Series(["", "what is this?", " What is this? "])], left, swapped=True)
    assert (swapped.a.tolist(), swapped.b.tolist(), swapped.highest_pair) == ([0], [2], (0, 2))


@pytest.mark.slow
def test_brute_force_over_real_prompts_finds_the_same_pairs(shared_data):
    with gzip.open(shared_data / "instructions" / "mix.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for _, line in zip(range(64_000), lines, strict=False)][::16]
    prompts = [f"{row['instruction']}\n{row['input']}" for row in rows if row["instruction"].isascii()]
    left, right = prompts[400:], prompts[:400]
    result = jaccard_cross_pairs([pl.Series(left)], pl.Series(right), shingle=3, threshold=0.3)
    sets = [shingles(text, 3) for text in prompts]
    expected = {}
    for j, b in enumerate(sets[:400]):
        for i, a in enumerate(sets[400:]):
            shared = len(a & b)
            if shared and shared / (len(a) + len(b) - shared) >= 0.3:
                expected[i, j] = shared / (len(a) + len(b) - shared)
    assert expected
    assert scores_of(result) == expected
