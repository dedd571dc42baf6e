"""Topics, their names, the map and the diversity: each against a plain oracle."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siftune.curation.sampling import shuffle_keys
from siftune.curation.topics.clusters import cluster_rows, topic_count
from siftune.curation.topics.diversity import second_moment, vendi_score
from siftune.curation.topics.names import topic_names
from siftune.curation.topics.projection import principal_components

pytest.importorskip("faiss")


def keys_of(count: int) -> np.ndarray:
    return shuffle_keys(pl.Series([str(row) for row in range(count)], dtype=pl.String), seed=0, purpose="topics")


def blobs(*sizes: int, d: int = 16, spread: float = 0.02, seed: int = 0) -> np.ndarray:
    """Rows around orthogonal directions, so many around each."""
    generator = np.random.default_rng(seed)
    centres = np.repeat(np.eye(d)[: len(sizes)], sizes, axis=0)
    return (centres + spread * generator.normal(size=(sum(sizes), d))).astype(np.float16)


def test_rows_around_three_directions_are_three_topics_the_largest_first():
    topic = cluster_rows(blobs(30, 90, 60), 3, keys=keys_of(180), seed=0)
    assert topic.tolist() == [2] * 30 + [0] * 90 + [1] * 60


@given(st.integers(0, 40), st.integers(1, 12), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_topics_are_numbered_without_gaps_by_size(rows, wanted, seed):
    vectors = (
        np.random.default_rng(seed).integers(-2, 3, (rows, 4)).astype(np.float16)
    )  # some rows are equal, some zero
    count = min(rows, wanted)
    topic = cluster_rows(vectors, count, keys=keys_of(rows), seed=seed)
    sizes = np.bincount(topic)
    assert len(topic) == rows
    assert len(sizes) <= count
    assert (sizes > 0).all()
    assert (np.diff(sizes) <= 0).all()


def test_the_number_of_topics():
    assert [topic_count(rows, None) for rows in (0, 1, 9, 400, 64_000)] == [0, 1, 3, 20, 50]
    assert [topic_count(rows, 7) for rows in (0, 3, 64_000)] == [0, 3, 7]


def test_topics_map_and_diversity_do_not_depend_on_threads():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    vectors = np.random.default_rng(1).normal(size=(3000, 64)).astype(np.float16)
    results = []
    for threads in (1, 2):
        with threadpoolctl.threadpool_limits(threads):
            moment, total = second_moment(vectors)
            points, _ = principal_components(vectors, moment, total)
            topic = cluster_rows(vectors, 20, keys=keys_of(3000), seed=3)
            results.append((topic.tobytes(), moment.tobytes(), points.tobytes(), round(vendi_score(moment), 9)))
    assert results[0] == results[1]


def test_a_topic_is_named_by_its_class_based_tf_idf():
    draw = np.random.default_rng(2)
    vocabulary = [f"word{letter}{other}" for letter in "abcdefgh" for other in "abcdefghijklmnop"]
    topic = np.sort(draw.integers(0, 3, 1000)).astype(np.uint32)
    spread = [draw.zipf(1.3, len(vocabulary)) ** -0.3 for _ in range(3)]
    texts = [" ".join(draw.choice(vocabulary, 3, p=spread[one] / spread[one].sum())) + " x the" for one in topic]
    names = topic_names([pl.Series(texts[:300]), pl.Series(texts[300:])], topic, keys=keys_of(1000))
    # The formula in plain Python, over the words that stand in at most 3 % of the rows and are no single letters.
    in_rows = Counter(word for text in texts for word in set(text.split()))
    counts = [
        Counter(
            word
            for text, one in zip(texts, topic, strict=True)
            for word in text.split()
            if one == number and in_rows[word] <= 30 and word != "x"
        )
        for number in range(3)
    ]
    mean_words = sum(map(Counter.total, counts)) / 3
    together = counts[0] + counts[1] + counts[2]
    for of_topic, name in zip(counts, names, strict=True):
        weight = {
            word: count / of_topic.total() * math.log(1 + mean_words / together[word])
            for word, count in of_topic.items()
        }
        best = sorted(weight, key=lambda word: (-round(weight[word], 12), word))[:3]
        assert name == ", ".join(best)


def test_names_are_never_alike_and_common_words_name_only_topics_that_have_no_others():
    texts = ["river stone garden"] * 80 + ["", "!?" + "x" * 100] + ["犬 が 好き"] * 3
    topic = np.repeat([0, 1, 2, 3], [40, 40, 2, 3]).astype(np.uint32)
    names = topic_names([pl.Series(texts)], topic, keys=keys_of(len(texts)))
    assert names[:3] == ["garden, river, stone", "garden, river, stone (2)", "no words"]
    assert set(names[3].split(", ")) <= set("犬が好き")
    assert topic_names([], np.empty(0, np.uint32), keys=keys_of(0)) == []


def kernel_vendi(vectors: np.ndarray) -> float:
    """The definition: the eigenvalues of the n × n matrix of cosines."""
    rows = vectors.astype(np.float64)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    values = np.linalg.eigvalsh(rows @ rows.T / len(rows))
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


@given(st.integers(1, 60), st.integers(2, 24), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_the_vendi_score_is_that_of_the_kernel_matrix(rows, d, seed):
    vectors = np.random.default_rng(seed).normal(size=(rows, d))
    score = vendi_score(second_moment(vectors)[0])
    assert score == pytest.approx(kernel_vendi(vectors), rel=2e-3)
    assert 1 - 1e-6 <= score <= min(rows, d) + 1e-3
    twice = vendi_score(second_moment(np.concatenate([vectors, vectors, np.zeros((1, d))]))[0])
    assert twice == pytest.approx(score, rel=1e-9)  # copies, and a row without text, add nothing


def test_the_vendi_score_counts_what_is_different():
    assert vendi_score(second_moment(np.ones((9, 5)))[0]) == pytest.approx(1)
    assert vendi_score(second_moment(np.repeat(np.eye(7), 3, axis=0))[0]) == pytest.approx(7)
    assert vendi_score(second_moment(np.zeros((0, 5)))[0]) == 0.0


@given(st.integers(2, 50), st.integers(2, 12), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_the_map_is_that_of_a_singular_value_decomposition(rows, d, seed):
    vectors = np.random.default_rng(seed).normal(size=(rows, d)) * np.linspace(3, 1, d)
    moment, total = second_moment(vectors)
    points, share = principal_components(vectors, moment, total)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    _, values, axes = np.linalg.svd(unit - unit.mean(axis=0), full_matrices=False)
    assert share == pytest.approx((values[:2] ** 2).sum() / (values**2).sum(), abs=2e-3)
    # The same up to rounding: signs are compared by the distances, axes where their variances are apart.
    if values[0] - values[1] > 0.3 and (len(values) < 3 or values[1] - values[2] > 0.3):
        expected = (unit - unit.mean(axis=0)) @ axes[:2].T
        assert np.abs(np.abs(points) - np.abs(expected)).max() < 0.02
        largest = np.abs(axes[:2]).argmax(axis=1)
        signs = np.sign(axes[[0, 1], largest])
        clear = np.abs(expected) > 0.05
        assert (np.sign(points)[clear] == np.sign(expected * signs)[clear]).mean() > 0.9


def test_one_row_and_no_row_have_a_place_on_the_map():
    for rows in (0, 1):
        vectors = np.ones((rows, 3))
        points, share = principal_components(vectors, *second_moment(vectors))
        assert points.shape == (rows, 2)
        assert not points.any()
        assert share == 0.0
