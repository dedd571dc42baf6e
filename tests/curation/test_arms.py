"""The arm files: who is in them, that held-out rows are in none, and that nothing of a row is lost on the way."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation import arms, corpus
from siftune.curation.balance.selection import COPIES
from siftune.curation.corpus import write_batches
from siftune.curation.errors import ConservationError
from siftune.curation.run.paths import RunPaths
from siftune.curation.schema import ARM, EXAMPLES, HELDOUT, ROWS, conform
from siftune.curation.stage_arms import DecidedArm

NAMES = ("raw", "curated", "random", "random-2", "balanced-random", "longest", "base")


def world(
    fates: list[tuple[str, str]],
    *,
    words: list[int] | None = None,
    groups: list[int] | None = None,
    sources: list[str] | None = None,
):
    """EXAMPLES and ROWS of rows given as (fate, split)."""
    n = len(fates)
    examples = pl.DataFrame(
        {
            "id": [f"s:{i}" for i in range(n)],
            "source": sources or ["s"] * n,
            "messages": [
                [{"role": "user", "content": f"question {i}"}, {"role": "assistant", "content": f"answer {i}"}]
                for i in range(n)
            ],
            "meta": [f'{{"i": {i}}}' for i in range(n)],
        }
    )
    rows = pl.DataFrame(
        {
            "id": examples["id"],
            "source": examples["source"],
            "fate": ["dropped" if fate == "leak" else fate for fate, _ in fates],
            "stage": [None if fate == "kept" else "near" for fate, _ in fates],
            "reason": [{"kept": None, "leak": "leak"}.get(fate, "near_duplicate") for fate, _ in fates],
            "split": [None if fate == "leak" else split for fate, split in fates],
            "group": groups or list(range(n)),
            "prompt_words": [2] * n,
            "answer_words": words or [(13 * i) % 50 for i in range(n)],
        }
    )
    present = rows["fate"] != "quarantined"
    return conform(examples.filter(present), EXAMPLES), conform(rows, ROWS)


def build(folder: Path, examples: pl.DataFrame, rows: pl.DataFrame, *, seed: int = 0, names=NAMES, by_stage=None):
    write_batches(iter([examples]), folder / "examples.parquet", EXAMPLES)
    counts = arms.build(
        folder / "examples.parquet", rows, seed=seed, out=RunPaths(folder), names=names, by_stage=by_stage
    )
    names = [*names, *(by_stage or {})]
    files = {name: pl.read_parquet(folder / "arms" / f"{name}.parquet") for name in names if name != "base"}
    held = {name: pl.read_parquet(folder / "heldout" / f"{name}.parquet") for name in ("test", "validation")}
    return counts, files, held


verdicts = st.lists(
    st.tuples(
        st.sampled_from(["kept", "dropped", "leak", "quarantined"]), st.sampled_from(["train", "test", "validation"])
    ),
    min_size=1,
    max_size=40,
)


@given(verdicts, st.integers(0, 2))
def test_every_arm_is_cut_from_the_training_groups(tmp_path_factory, fates, seed):
    examples, rows = world(fates)
    counts, files, held = build(tmp_path_factory.mktemp("run"), examples, rows, seed=seed)
    expected = [f"s:{i}" for i, (fate, split) in enumerate(fates) if split == "train" and fate in ("kept", "dropped")]
    kept = [f"s:{i}" for i, pair in enumerate(fates) if pair == ("kept", "train")]
    assert files["raw"]["id"].to_list() == expected
    assert files["curated"]["id"].to_list() == kept
    answer_words = dict(rows.select("id", "answer_words").iter_rows())
    by_length = sorted(expected, key=lambda row: -answer_words[row])[: len(kept)]
    assert set(files["longest"]["id"]) == set(by_length)
    for draw in ("random", "random-2", "balanced-random"):
        assert set(files[draw]["id"]) <= set(expected)
        assert len(files[draw]) == files[draw]["id"].n_unique() == len(kept)
    for name in ("test", "validation"):
        assert held[name]["id"].to_list() == [f"s:{i}" for i, pair in enumerate(fates) if pair == ("kept", name)]
        assert held[name].schema == HELDOUT
        assert (held[name]["split"] == name).all()
    for name, frame in files.items():
        assert frame.schema == ARM
        assert counts[name].rows == frame.height
        assert counts[name].kept == len(set(frame["id"]) & set(kept))
        assert counts[name].answer_words == sum(answer_words[row] for row in frame["id"])
        assert not set(frame["id"]) & (set(held["test"]["id"]) | set(held["validation"]["id"]))
        for other, its in files.items():
            assert (other in counts[name].same_as) == (name != other and set(its["id"]) == set(frame["id"]))


def test_rows_arrive_whole_and_say_why_they_are_there(tmp_path):
    examples, rows = world([("kept", "train"), ("dropped", "train"), ("kept", "test")], words=[3, 90, 4])
    _, files, held = build(tmp_path, examples, rows)
    for frame in (*files.values(), *held.values()):
        whole = frame.select("id", "source", "messages", "meta")
        assert whole.equals(examples.select(whole.columns).filter(pl.col("id").is_in(frame["id"].implode())))
    assert files["raw"]["why"].to_list() == [
        "training group; curation kept it",
        "training group; curation dropped it (near: near_duplicate)",
    ]
    assert files["curated"]["why"].to_list() == ["curation kept it"]
    assert files["longest"]["why"].to_list() == [
        (
            "among the 1 longest answers up to the 0.99 quantile of their source, 90 words; "
            "curation dropped it (near: near_duplicate)"
        )
    ]
    assert files["raw"]["group"].to_list() == [0, 1]


def test_a_held_out_row_with_another_row_in_its_group_would_have_leaked(tmp_path):
    fates = [("kept", "test"), ("dropped", "test"), ("kept", "test"), ("kept", "train")]
    examples, rows = world(fates, groups=[0, 0, 2, 3])
    _, _, held = build(tmp_path, examples, rows)
    assert dict(held["test"].select("id", "leaked").iter_rows()) == {"s:0": True, "s:2": False}


def test_repeated_rows_stand_in_the_curated_arm_as_often_as_balance_says(tmp_path):
    examples, rows = world([("kept", "train"), ("kept", "train"), ("dropped", "train"), ("dropped", "train")])
    rows = rows.with_columns(copies=pl.Series([3, 1, 0, 0], dtype=pl.UInt32))
    counts, files, _ = build(tmp_path, examples, rows)
    assert files["curated"]["id"].to_list() == ["s:0"] * 3 + ["s:1"]
    assert files["random"].height == counts["longest"].rows == 4
    assert counts["random"].same_as == ["raw", "random-2", "balanced-random", "longest"]


def test_arms_are_byte_identical_and_the_seed_matters(tmp_path):
    examples, rows = world([("kept" if i % 3 else "dropped", "train") for i in range(300)])
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        build(tmp_path / name, examples, rows, seed=int(name == "c"))
    for name in ("raw", "curated", "random", "random-2", "balanced-random", "longest"):
        one, two, three = ((tmp_path / run / "arms" / f"{name}.parquet").read_bytes() for run in "abc")
        assert one == two
        assert (one == three) == ("random" not in name)
    drawn = [pl.read_parquet(tmp_path / run / "arms" / "random.parquet")["id"].to_list() for run in "ac"]
    second, balanced = (
        pl.read_parquet(tmp_path / "a" / "arms" / f"{name}.parquet")["id"].to_list()
        for name in ("random-2", "balanced-random")
    )
    assert drawn[0] != drawn[1]
    assert drawn[0] != second
    assert balanced not in (drawn[0], second)  # of one source it is another draw of random


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abcd")), min_size=1, max_size=60), st.integers(0, 3))
def test_balanced_random_takes_equally_many_rows_of_each_source(tmp_path_factory, drawn, seed):
    fates = [("kept" if kept else "dropped", "train") for kept, _ in drawn]
    examples, rows = world(fates, sources=[source for _, source in drawn])
    _, files, _ = build(tmp_path_factory.mktemp("run"), examples, rows, seed=seed, names=["raw", "balanced-random"])
    available, counts = (dict(files[name]["source"].value_counts().iter_rows()) for name in ("raw", "balanced-random"))
    assert sum(counts.values()) == sum(kept for kept, _ in drawn)
    # One by one in turn, until there are as many rows as curated ones: the definition of water-filling.
    level = max(counts.values(), default=0)
    for source, rows_of_source in available.items():
        assert counts.get(source, 0) == rows_of_source or counts.get(source, 0) >= level - 1
        assert counts.get(source, 0) <= rows_of_source


def test_the_draw_of_a_source_does_not_depend_on_the_others(tmp_path):
    fates = [("kept" if i % 2 else "dropped", "train") for i in range(60)]
    drawn = []
    for name, sources in (("two", ["a"] * 30 + ["b"] * 30), ("three", ["a"] * 30 + ["b", "c"] * 15)):
        (tmp_path / name).mkdir()
        _, files, _ = build(tmp_path / name, *world(fates, sources=sources), names=["balanced-random"])
        drawn.append(set(files["balanced-random"].filter(source="a")["id"]))
    assert (len(drawn[0]), len(drawn[1])) == (15, 10)
    assert drawn[1] < drawn[0]


def test_outliers_do_not_fill_the_longest_arm(tmp_path):
    # In each source of 150 rows two answers are far longer than the rest, and source b is longer throughout.
    words = [10 + i for i in range(148)] + [9_000, 9_001] + [500 + i for i in range(148)] + [8_000, 8_001]
    sources = ["a"] * 150 + ["b"] * 150
    fates = [("kept" if i < 100 else "dropped", "train") for i in range(300)]
    _, files, _ = build(tmp_path, *world(fates, words=words, sources=sources))
    lengths = sorted((words[int(row.removeprefix("s:"))] for row in files["longest"]["id"]), reverse=True)
    # ⌈0.99 · 149⌉ = 148: the longest answer but one is the quantile, and only the longest lies beyond it.
    assert lengths == [9_000, 8_000, *(500 + 147 - i for i in range(98))]
    (tmp_path / "most").mkdir()
    most = [("kept" if i else "dropped", "train") for i in range(300)]
    _, files, _ = build(tmp_path / "most", *world(most, words=words, sources=sources))
    assert files["longest"].height == 299
    assert "s:149" not in files["longest"]["id"]  # the longest of all comes last
    assert "s:0" in files["longest"]["id"]


def decided(copies: dict[str, int], **facts):
    return DecidedArm(pl.DataFrame(list(copies.items()), schema=COPIES, orient="row"), **facts)


def test_an_arm_by_stage_holds_what_was_decided_as_often_as_it_says(tmp_path):
    examples, rows = world([("kept", "train"), ("dropped", "train"), ("dropped", "train"), ("kept", "test")])
    by_stage = {"no-near": decided({"s:1": 2, "s:0": 1}, left_out=("near", "answers"), unmeasured={"semantic": 1})}
    counts, files, _ = build(tmp_path, examples, rows.with_columns(copies=pl.lit(5)), by_stage=by_stage)
    assert files["no-near"]["id"].to_list() == ["s:0", "s:1", "s:1"]
    assert files["no-near"]["why"].to_list() == [
        "kept without near, answers; curation kept it",
        *["kept without near, answers; curation dropped it (near: near_duplicate)"] * 2,
    ]
    record = counts["no-near"]
    assert (record.rows, record.kept, record.same_as) == (3, 1, [])
    assert (record.left_out, record.unmeasured) == (["near", "answers"], {"semantic": 1})


@pytest.mark.parametrize("row", ["s:1", "s:2", "s:3", "s:9"], ids=["held out", "leak", "quarantined", "unknown"])
def test_an_arm_by_stage_with_a_row_that_is_not_for_training_is_a_fault(tmp_path, row):
    examples, rows = world([("kept", "train"), ("kept", "test"), ("leak", "train"), ("quarantined", "train")])
    by_stage = {"no-near": decided({"s:0": 1, row: 1}, left_out=("near",), unmeasured={})}
    with pytest.raises(ConservationError, match="no-near holds rows that are not for training"):
        build(tmp_path, examples, rows, by_stage=by_stage)


def test_many_batches_make_the_same_rows_as_one(tmp_path, monkeypatch):
    examples, rows = world([(["kept", "dropped"][i % 2], ["train", "test"][i % 5 == 0]) for i in range(101)])
    (tmp_path / "one").mkdir()
    (tmp_path / "many").mkdir()
    _, at_once, _ = build(tmp_path / "one", examples, rows)
    monkeypatch.setattr(corpus, "BATCH", 7)
    monkeypatch.setattr(arms, "BATCH", 10)
    _, in_batches, held_out = build(tmp_path / "many", examples, rows)
    assert all(at_once[name].equals(in_batches[name]) for name in at_once)
    assert held_out["test"].height == 11


def test_rows_that_the_examples_do_not_hold_are_a_fault(tmp_path):
    examples, rows = world([("kept", "train"), ("kept", "train")])
    with pytest.raises(ConservationError, match="do not hold"):
        build(tmp_path, examples[:1], rows)
    assert not list(tmp_path.rglob("*.parquet"))[1:]
