"""Which rows of which lengths stay: targets, budgets, caps, and the choice inside a bin."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation.balance.selection import CLOSE_ENOUGH, MOST_COPIES, balance_lengths, rows_without_budget
from siftune.curation.recipe.sections import Balance
from siftune.curation.run.manifest import BalanceRecord
from siftune.curation.schema import DECISIONS


def frame(n: int, *, sources: int = 2, pinned: set[int] = frozenset(), turns: list[int] | None = None) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "row": np.arange(n, dtype=np.uint32),
            "id": [f"s{i % sources}:{i}" for i in range(n)],
            "source": [f"s{i % sources}" for i in range(n)],
            "turns": pl.Series(turns or [2] * n, dtype=pl.UInt32),
            "pinned": [i in pinned for i in range(n)],
        },
        schema_overrides={"id": pl.String, "source": pl.String, "pinned": pl.Boolean},
    )


def skewed(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).lognormal(3, 0.8, n).astype(np.uint32) + 1


settings = st.builds(
    Balance,
    bins=st.integers(2, 8),
    spacing=st.sampled_from(["log", "quantile"]),
    target=st.sampled_from(["uniform", "temperature"]),
    temperature=st.sampled_from([0.0, 0.5, 1.0]),
    rows=st.none() | st.integers(1, 60),
    max_per_source=st.none() | st.integers(1, 30),
    by_turns=st.booleans(),
    repeat=st.booleans(),
)
worlds = st.integers(0, 50).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 40), min_size=n, max_size=n),
        st.lists(st.sampled_from([2, 3, 5]), min_size=n, max_size=n),
        st.sets(st.integers(0, max(0, n - 1)), max_size=3),
        st.booleans(),
    )
)


@given(settings, worlds)
def test_balancing_conserves_rows_and_keeps_its_promises(section, world):
    values, turns, pinned, embedded = world
    n = len(values)
    index = frame(n, pinned=pinned if n else set(), turns=turns)
    vectors = np.random.default_rng(n).normal(size=(n, 4)).astype(np.float16) if embedded else None
    result = balance_lengths(index, np.asarray(values, np.uint32), settings=section, seed=1, vectors=vectors)
    again = balance_lengths(index, np.asarray(values, np.uint32), settings=section, seed=1, vectors=vectors)
    assert (result.copies == again.copies).all()
    assert result.decisions.equals(again.decisions)
    assert result.decisions.schema == DECISIONS
    kept = set(index.filter(pl.Series(result.copies > 0, dtype=pl.Boolean))["id"])
    assert kept.isdisjoint(result.decisions["id"])
    assert kept | set(result.decisions["id"]) == set(index["id"])
    assert set(result.decisions["witness"].drop_nulls()) <= kept
    forced = int(index["pinned"].sum())
    assert set(index.filter("pinned")["id"]) <= kept
    assert result.copies.max(initial=0) <= (MOST_COPIES if section.repeat else 1)
    if section.rows:
        assert result.copies.sum() <= section.rows + forced
    elif not section.repeat and not section.max_per_source:
        assert result.copies.sum() >= n / 2
    if section.max_per_source and not section.repeat:
        used = index.filter(pl.Series(result.copies > 0, dtype=pl.Boolean)).group_by("source").len()["len"]
        assert (used <= section.max_per_source + forced).all()
    assert result.bins["before"].sum() == n
    assert result.bins["after"].sum() == result.copies.sum()
    if n:
        assert result.bins["target"].sum() == pytest.approx(1)
    assert BalanceRecord.model_validate_json(result.record().model_dump_json()) == result.record()


def test_a_second_pass_under_the_same_budget_drops_nothing():
    values = skewed(800)
    section = Balance(rows=200, max_per_source=150)
    first = balance_lengths(frame(800), values, settings=section, seed=0)
    keep = first.copies > 0
    second = balance_lengths(frame(800).filter(pl.Series(keep)), values[keep], settings=section, seed=0)
    assert keep.sum() == 200
    assert second.decisions.is_empty()


def test_a_uniform_target_is_met_where_there_are_rows_enough():
    values = np.repeat([1, 10, 100, 900], [1000, 400, 200, 50]).astype(np.uint32)
    result = balance_lengths(frame(1650), values, settings=Balance(bins=4, target="uniform", rows=200), seed=0)
    assert result.bins.filter(pl.col("before") > 0)["after"].to_list() == [50, 50, 50, 50]
    assert result.after.effective_bins == pytest.approx(4)
    assert result.after.distance == pytest.approx(0)
    short = balance_lengths(frame(1650), values, settings=Balance(bins=4, target="uniform", rows=400), seed=0)
    assert short.bins.filter(pl.col("before") > 0)["after"].to_list() == [117, 117, 116, 50]


def test_without_a_budget_the_rule_is_the_largest_set_close_enough():
    target = np.asarray([0.25] * 4)
    capacity = np.asarray([1000, 800, 700, 600])
    expected = max(
        total
        for total in range(1, 3101)
        if np.abs(np.minimum(capacity / total, target) - target).sum() <= CLOSE_ENOUGH + 1e-12
    )
    assert rows_without_budget(target, capacity, rows=3100) == expected == 2888
    assert rows_without_budget(target, np.asarray([1000, 10, 10, 10]), rows=1030) == 515
    assert rows_without_budget(np.asarray([0.5, 0.5]), np.asarray([10, 10]), rows=20) == 20


def test_temperature_one_changes_nothing_and_lower_ones_flatten():
    values = skewed(3000)
    results = [
        balance_lengths(frame(3000), values, settings=Balance(temperature=t, rows=1000), seed=0) for t in (1, 0.5, 0)
    ]
    entropies = [result.after.entropy for result in results]
    assert entropies == sorted(entropies)
    assert results[0].after.distance < 0.01
    assert balance_lengths(frame(3000), values, settings=Balance(temperature=1), seed=0).decisions.is_empty()


def test_a_reference_sets_the_distribution():
    values = np.tile(np.asarray([2, 20, 200], np.uint32), 400)
    reference = np.asarray([2] * 10 + [20] * 60 + [5000] * 30)
    section = Balance(bins=3, target="reference", reference="r.jsonl", rows=300)
    result = balance_lengths(frame(1200), values, settings=section, seed=0, reference=reference)
    assert result.bins["after"].to_list() == [30, 180, 90]


def test_joint_bins_tell_one_turn_from_many():
    turns = [2, 3, 5, 8] * 100
    result = balance_lengths(
        frame(400, turns=turns),
        np.full(400, 7, np.uint32),
        settings=Balance(target="uniform", by_turns=True, rows=100),
        seed=0,
    )
    assert result.bins.select("turns", "before", "after").rows() == [("single", 200, 50), ("multi", 200, 50)]


@pytest.mark.parametrize("repeat", [False, True])
def test_a_budget_in_tokens_is_spent_and_not_overspent(repeat):
    values, n = skewed(2000), 2000
    costs = values * 3 + np.random.default_rng(1).integers(0, 200, n)
    budget = int(costs.sum() // 5)
    section = Balance(target="uniform", tokens=budget, repeat=repeat)
    result = balance_lengths(frame(n), values, settings=section, seed=0, costs=costs)
    assert 0.97 * budget < (result.copies * costs).sum() <= budget
    assert result.copies.max() == (4 if repeat else 1)
    assert result.after.distance < result.before.distance


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 40)), min_size=1, max_size=30), st.integers(0, 600))
def test_no_budget_in_tokens_is_overspent(rows, budget):
    values, costs = (np.asarray(column, np.uint32) for column in zip(*rows, strict=True))
    section = Balance(bins=3, target="uniform", tokens=budget + 1)
    result = balance_lengths(frame(len(rows)), values, settings=section, seed=0, costs=costs)
    assert (result.copies * costs).sum() <= budget + 1
    assert result.copies.max() <= 1
    if costs.sum() <= budget:
        assert result.decisions.is_empty()


def test_restored_rows_stay_whatever_the_budget():
    pinned = set(range(0, 100, 2))
    result = balance_lengths(frame(100, pinned=pinned), skewed(100), settings=Balance(rows=5), seed=0)
    assert set(np.flatnonzero(result.copies)) == pinned


def test_a_capped_source_is_cut_towards_the_target():
    values = np.asarray([1] * 90 + [100] * 10, np.uint32)
    index = frame(100, sources=1)
    result = balance_lengths(index, values, settings=Balance(bins=2, target="uniform", max_per_source=20), seed=0)
    assert result.bins["after"].to_list() == [10, 10]
    assert set(result.decisions["reason"]) == {"balance_source"}
    assert set(result.decisions["detail"]) == {"1 to 10 words: kept 10 of 90"}


def test_diverse_rows_are_chosen_and_the_sacrificed_name_their_nearest():
    generator = np.random.default_rng(0)
    directions = np.eye(10)
    vectors = np.repeat(directions, 20, axis=0) + 0.01 * generator.normal(size=(200, 10))
    result = balance_lengths(
        frame(200), np.full(200, 9, np.uint32), settings=Balance(rows=10), seed=0, vectors=vectors.astype(np.float16)
    )
    chosen = np.flatnonzero(result.copies)
    assert sorted(chosen // 20) == list(range(10))
    position = {name: at for at, name in enumerate(frame(200)["id"])}
    for row, witness, score, detail in result.decisions.select("id", "witness", "score", "detail").iter_rows():
        assert position[row] // 20 == position[witness] // 20
        a, b = (vectors[position[x]].astype(np.float16).astype(float) for x in (row, witness))
        assert score == pytest.approx(a @ b / math.sqrt((a @ a) * (b @ b)))
        assert detail == "9 words: kept 10 of 200"
    assert "coverage" in result.chosen_by


def test_without_embeddings_the_choice_is_a_seeded_draw_by_name():
    values = np.full(100, 5, np.uint32)
    order = np.random.default_rng(0).permutation(100)
    first = balance_lengths(frame(100), values, settings=Balance(rows=20), seed=0)
    permuted = balance_lengths(frame(100)[order], values, settings=Balance(rows=20), seed=0)
    reseeded = balance_lengths(frame(100), values, settings=Balance(rows=20), seed=1)
    assert set(np.flatnonzero(first.copies)) == set(order[np.flatnonzero(permuted.copies)])
    assert (first.copies != reseeded.copies).any()
    assert first.decisions["witness"].is_null().all()
    assert "draw" in first.chosen_by


def test_a_capped_topic_is_cut_after_the_sources():
    topics = pl.Series(["a"] * 60 + ["b"] * 40)
    section = Balance(bins=2, target="temperature", temperature=1.0, max_per_topic=10)
    result = balance_lengths(frame(100, sources=2), skewed(100), settings=section, seed=0, topics=topics)
    kept = topics.filter(pl.Series(result.copies > 0)).value_counts(sort=True)["count"].to_list()
    assert kept == [10, 10]
    assert set(result.decisions["reason"]) == {"balance_topic"}
    one = Balance(bins=2, target="temperature", temperature=1.0, max_per_source=8)
    two = one.model_copy(update={"max_per_topic": 5})
    closed = [
        balance_lengths(frame(100, sources=2), skewed(100), settings=each, seed=0, topics=topics).decisions.filter(
            pl.col("reason") == "balance_source"
        )["id"]
        for each in (one, two)
    ]
    assert len(closed[0]) == 84
    assert closed[0].equals(closed[1])  # the cap on topics opens no row that the cap on sources closed
