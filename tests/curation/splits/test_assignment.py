"""Groups of similar rows, drawn splits and given splits, against brute force."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation.errors import UserError
from siftune.curation.recipe.sections import Splits
from siftune.curation.split_names import given_splits
from siftune.curation.splits.assignment import SMALL_GROUP, draw_splits, similarity_groups


def frame(n: int, *, sources: int = 3, words: list[int] | None = None) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "row": np.arange(n, dtype=np.uint32),
            "id": [f"s{i % sources}:{i}" for i in range(n)],
            "source": [f"s{i % sources}" for i in range(n)],
            "split": pl.Series([None] * n, dtype=pl.String),
            "prompt_words": np.asarray(words or [1 + (7 * i) % 90 for i in range(n)], dtype=np.uint32),
            "rank": np.arange(n, dtype=np.uint32)[::-1],
        }
    )


edge_lists = st.integers(1, 30).flatmap(
    lambda n: st.tuples(
        st.just(n),
        st.lists(st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=25), max_size=3),
    )
)


def arrays(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    table = np.asarray(pairs, dtype=np.uint32).reshape(-1, 2)
    return table[:, 0], table[:, 1]


@given(edge_lists)
def test_groups_are_the_components_that_a_breadth_first_search_finds(world):
    n, lists = world
    neighbours = {i: set() for i in range(n)}
    for a, b in itertools.chain.from_iterable(lists):
        neighbours[a].add(b)
        neighbours[b].add(a)
    expected = []
    for start in range(n):
        seen, frontier = {start}, [start]
        while frontier:
            new = neighbours[frontier.pop()] - seen
            seen |= new
            frontier += new
        expected.append(min(seen))
    group = similarity_groups(n, [arrays(pairs) for pairs in lists])
    assert group.dtype == np.uint32
    assert group.tolist() == expected


worlds = st.integers(1, 60).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, max(0, n // 2)), min_size=n, max_size=n),
        st.lists(st.booleans(), min_size=n, max_size=n),
        st.sampled_from([0, 0.1, 0.3, 1, 3, 5]),
        st.sampled_from([0, 0.1, 2]),
        st.integers(0, 3),
    )
)


@given(worlds)
def test_a_draw_cuts_no_group_and_holds_one_clean_row_of_each(world):
    label, eligible, test, validation, seed = world
    n, eligible = len(label), np.asarray(eligible)
    group = similarity_groups(n, [arrays([(i, label.index(x)) for i, x in enumerate(label)])])
    asked = (("test", test), ("validation", validation))
    sizes = Splits(**dict(asked))
    index = frame(n)
    rows = {name: size if size >= 1 or size == 0 else max(1, round(size * eligible.sum())) for name, size in asked}
    members = [[position for position, other in enumerate(label) if other == name] for name in set(label)]
    free = sum(len(positions) <= SMALL_GROUP and bool(eligible[positions].any()) for positions in members)
    groups_left, enough = len(members), True
    for count in rows.values():
        enough &= count <= free and (count == 0 or count < groups_left)
        free, groups_left = free - count, groups_left - count
    if not enough:
        with pytest.raises(UserError, match="Ask for less"):
            draw_splits(index, group, sizes=sizes, eligible=eligible, seed=seed)
        return
    drawn = draw_splits(index, group, sizes=sizes, eligible=eligible, seed=seed)
    table = drawn.with_columns(group=pl.Series(group), eligible=pl.Series(eligible), rank=index["rank"])
    assert drawn["row"].to_list() == list(range(n))
    assert table.group_by("group").agg(pl.col("split").n_unique())["split"].to_list() == [1] * len(set(group))
    for name, count in rows.items():
        held = table.filter(pl.col("split") == name)
        assert held["representative"].sum() == count
        assert held.filter("representative")["eligible"].all()
        for (_,), members in held.group_by("group"):
            best = members.filter("eligible").sort("rank")["row"][0]
            assert members.filter("representative")["row"].to_list() == [best]
    assert not table.filter(pl.col("split") == "train")["representative"].any()
    assert (drawn["split"] == "train").any()


def test_sizes_that_cannot_be_met_are_refused_with_numbers():
    with pytest.raises(UserError, match=r"test split needs 30 rows.*There are 20 such groups\. Ask"):
        draw_splits(frame(20), np.arange(20), sizes=Splits(test=30), eligible=np.ones(20, bool), seed=0)
    with pytest.raises(UserError, match="none would remain"):
        draw_splits(frame(20), np.arange(20), sizes=Splits(test=20), eligible=np.ones(20, bool), seed=0)


def test_a_very_large_group_and_a_group_without_a_clean_row_stay_in_training():
    n = 2000
    group = np.where(np.arange(n) < 30, 0, np.arange(n))
    eligible = np.arange(n) != 1999
    drawn = draw_splits(frame(n), group, sizes=Splits(test=1900), eligible=eligible, seed=1)
    assert set(drawn["split"][:30]) == {"train"}
    assert set(drawn["reason"][:30]) == {"very large group"}
    assert drawn.row(1999)[1:] == ("train", False, "group without a clean row")


def test_a_draw_follows_the_strata_of_source_and_length():
    index = frame(900, sources=3, words=[3] * 450 + [300] * 450)
    drawn = draw_splits(index, np.arange(900), sizes=Splits(test=90), eligible=np.ones(900, bool), seed=3)
    held = index.filter(drawn["split"] == "test")
    assert held.group_by("source", "prompt_words").len()["len"].to_list() == [15] * 6


def test_a_draw_depends_on_names_not_on_row_order():
    n = 300
    index, order = frame(n), np.random.default_rng(0).permutation(n)
    one = draw_splits(index, np.arange(n), sizes=Splits(test=0.2), eligible=np.ones(n, bool), seed=5)
    two = draw_splits(index[order], np.arange(n), sizes=Splits(test=0.2), eligible=np.ones(n, bool), seed=5)
    other = draw_splits(index, np.arange(n), sizes=Splits(test=0.2), eligible=np.ones(n, bool), seed=6)
    ids = [set(f.filter(s["split"] == "test")["id"]) for f, s in ((index, one), (index[order], two), (index, other))]
    assert ids[0] == ids[1] != ids[2]


def test_given_splits_are_read_by_their_usual_names():
    names = pl.Series(["train_sft", "dev", None, "test[:5]", "Validation", "en"])
    expected = ["train", "validation", "train", "test", "validation", "train"]
    assert given_splits(names).to_list() == expected
    assert given_splits(pl.Series(["train", None, "en"])) is None
    assert given_splits(pl.Series([None], dtype=pl.String)) is None


def test_a_draw_follows_the_topics_and_is_the_same_without_them():
    n = 400
    index = frame(n, sources=3)
    topics = pl.Series(["a"] * 200 + ["b"] * 120 + [None] * 80, dtype=pl.String)
    drawn = draw_splits(
        index, np.arange(n), sizes=Splits(test=40), eligible=np.ones(n, bool), seed=5, topics=topics
    ).with_columns(topic=topics)
    held = drawn.filter(pl.col("split") == "test")["topic"].value_counts()
    assert dict(held.iter_rows()) == {"a": 20, "b": 12, None: 8}
    plain = draw_splits(index, np.arange(n), sizes=Splits(test=40), eligible=np.ones(n, bool), seed=5)
    alike = draw_splits(
        index, np.arange(n), sizes=Splits(test=40), eligible=np.ones(n, bool), seed=5, topics=pl.Series(["a"] * n)
    )
    assert plain.equals(alike)
