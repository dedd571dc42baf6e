"""One table of split names for whoever reads them: files, rows, keep order and the splits stage."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from siftune.curation import schema
from siftune.curation.ingest.file_kinds import split_in_name
from siftune.curation.prepare import rank
from siftune.curation.recipe.loading import parse_recipe
from siftune.curation.split_names import SPLIT_NAMES, given_splits, standard_split


@pytest.mark.parametrize(("name", "split"), SPLIT_NAMES.items())
def test_every_reader_takes_a_name_for_the_same_split(name: str, split: str) -> None:
    assert standard_split(f" {name.upper()}") == split
    assert split_in_name(Path(f"{name}-00000-of-00002.jsonl.gz")) == split
    assert given_splits(pl.Series([name, "test"]))[0] == split


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("faq_test.jsonl", "test"),
        ("faq-train.jsonl", "train"),
        ("train_sft", "train"),
        ("test_sft", "test"),
        ("test[:5]", "test"),
        ("test2", "test"),
        ("my.val.csv", "validation"),
        ("held-out questions.json", "test"),
        ("Hold_Out", "test"),
        ("train_test.jsonl", "test"),
        ("validation_of_test.jsonl", "validation"),
        ("default/test/0000.jsonl", "test"),
        ("data/train/part-0.jsonl", "train"),
        ("train-data/test.jsonl", "test"),
        ("test/train-0.jsonl", "test"),
        ("dev/rows.jsonl", "validation"),
        ("latest/contest.jsonl", None),
        ("evaluations/training-like.jsonl", "train"),
        ("default/0000.parquet", None),
    ],
)
def test_words_of_names_and_folders_say_the_split(name: str, split: str | None) -> None:
    assert split_in_name(Path(name)) == split
    if "/" not in name:
        assert standard_split(name) == (split or name)
        assert given_splits(pl.Series([name, "test"]))[0] == split


@pytest.mark.parametrize("name", ["testimony.jsonl", "developers.json", "training_set.csv", "rows.jsonl"])
def test_a_file_whose_name_only_begins_like_a_split_has_none(name: str) -> None:
    expected = "train" if name == "training_set.csv" else None
    assert split_in_name(Path(name)) == expected


@pytest.mark.parametrize("held_out", ["test", "test_sft", "holdout", "dev"])
@pytest.mark.parametrize(("yield_to", "first"), [("eval", "s:1"), ("train", "s:0")])
def test_keep_order_knows_held_out_rows_by_every_name(held_out: str, yield_to: str, first: str) -> None:
    index = pl.DataFrame({"row": [0, 1], "id": ["s:0", "s:1"], "split": ["train", held_out]})
    missing = schema.INDEX.keys() - {*index.columns, "rank", "pinned"}
    recipe = parse_recipe(f"sources: [{{path: rows.jsonl}}]\nsplits: {{yield_to: {yield_to}}}")
    ranked = rank(index.with_columns(pl.lit(None, schema.INDEX[name]).alias(name) for name in sorted(missing)), recipe)
    assert ranked.sort("rank")["id"][0] == first
