"""The arm files: who is in them, that held-out rows are in none, and that nothing of a row is lost on the way."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation import arms, corpus
from siftune.curation.corpus import write_batches
from siftune.curation.errors import ConservationError
from siftune.curation.run.paths import RunPaths
from siftune.curation.schema import ARM, EXAMPLES, HELDOUT, ROWS, conform

NAMES = ("raw", "curated", "random", "random-2", "longest", "base")


def world(fates: list[tuple[str, str]], *, words: list[int] | None = None, groups: list[int] | None = None):
    """EXAMPLES and ROWS of rows given as (fate, split)."""
    n = len(fates)
    examples = pl.DataFrame(
        {
            "id": [f"s:{i}" for i in range(n)],
            "source": ["s"] * n,
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


def build(folder: Path, examples: pl.DataFrame, rows: pl.DataFrame, *, seed: int = 0, names=NAMES):
    write_batches(iter([examples]), folder / "examples.parquet", EXAMPLES)
    counts = arms.build(folder / "examples.parquet", rows, seed=seed, out=RunPaths(folder), names=names)
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
    for draw in ("random", "random-2"):
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
        "among the 1 longest answers, 90 words; curation dropped it (near: near_duplicate)"
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
    assert counts["random"].same_as == ["raw", "random-2", "longest"]


def test_arms_are_byte_identical_and_the_seed_matters(tmp_path):
    examples, rows = world([("kept" if i % 3 else "dropped", "train") for i in range(300)])
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        build(tmp_path / name, examples, rows, seed=int(name == "c"))
    for name in ("raw", "curated", "random", "random-2", "longest"):
        one, two, three = ((tmp_path / run / "arms" / f"{name}.parquet").read_bytes() for run in "abc")
        assert one == two
        assert (one == three) == (not name.startswith("random"))
    drawn = [pl.read_parquet(tmp_path / run / "arms" / "random.parquet")["id"].to_list() for run in "ac"]
    second = pl.read_parquet(tmp_path / "a" / "arms" / "random-2.parquet")["id"].to_list()
    assert drawn[0] != drawn[1]
    assert drawn[0] != second


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
