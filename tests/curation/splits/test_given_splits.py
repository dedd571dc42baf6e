"""Splits that data come with: kept apart unless the recipe merges them, and what they leaked is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation import pipeline
from siftune.curation.data_recipe import recipe_of_data, splits_of_files
from siftune.curation.pipeline import curate
from siftune.curation.review.funnel import warnings
from siftune.curation.review.leakage import given_split_sentence
from siftune.curation.run.folder import RunFolder
from siftune.curation.splits.given_split_leakage import given_split_leakage
from tests.worlds import many, write_source


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report decides nothing and has tests of its own."""
    monkeypatch.setattr(pipeline.report, "write", lambda run: None)


def write_splits(folder: Path, *splits: str) -> None:
    """Forty rows, in turn of each split; the last stands in the first split word for word."""
    rows = many(120)[::3]
    marked = [row | {"split": splits[number % len(splits)]} for number, row in enumerate(rows)]
    write_source([*marked, marked[0] | {"split": splits[-1]}], folder / "rows.jsonl")


def run_with(folder: Path, **sections: Any) -> RunFolder:
    recipe = folder / "r.yaml"
    recipe.write_text(yaml.safe_dump({"sources": [{"path": "rows.jsonl", "name": "s"}], "run": "run", **sections}))
    return curate(recipe)


def curated(run: RunFolder, split: str) -> set[str]:
    path = run.path / "curated" / f"{split}.parquet"
    return set(pl.read_parquet(path)["id"]) if path.is_file() else set()


def test_splits_of_the_data_stay_apart_without_a_word_in_the_recipe(tmp_path: Path) -> None:
    write_splits(tmp_path, "train", "train", "test")
    run = run_with(tmp_path)
    of_test = {f"s:{number}" for number in range(40) if number % 3 == 2}
    assert curated(run, "test") == of_test | {"s:40"}
    assert curated(run, "train") == {f"s:{number}" for number in range(1, 40)} - of_test
    assert run.manifest.certificate.passed
    assert given_split_sentence(run).startswith(
        "As the data came, 1 of the 14 held-out rows had a similar training row"
    )
    assert any("these were kept apart" in line for line in warnings(run))
    # Continued, and opened by others, it is the same run; no encoder was asked for splits that nobody ordered.
    assert run.recipe.splits is not None
    assert run.recipe.encoder is None
    ledger = run.ledger_path.read_bytes()
    assert curate(run.recipe_path).ledger_path.read_bytes() == ledger


def test_a_recipe_may_merge_them_and_is_told(tmp_path: Path) -> None:
    write_splits(tmp_path, "train", "train", "test")
    run = run_with(tmp_path, splits=None)
    assert len(curated(run, "train")) == 40
    assert not curated(run, "test")
    (line,) = [line for line in warnings(run) if "splits: null" in line]
    assert line.startswith("14 rows are of held-out splits of the data and stand among the training rows")


@pytest.mark.parametrize("splits", [("test",), ("train",), ("english", "german")])
def test_data_of_one_split_are_all_for_training(tmp_path: Path, splits: tuple[str, ...]) -> None:
    write_splits(tmp_path, *splits)
    run = run_with(tmp_path)
    assert len(curated(run, "train")) == 40
    assert run.recipe.splits is None
    assert run.manifest.certificate is None


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        (["train.jsonl", "test.jsonl"], ["train", "test"]),
        (["a/rows.json", "b/my_dev.json.gz"], [None, "validation"]),
        (["test.jsonl"], [None]),
        ([".", "/", "test.jsonl"], [None, None, "test"]),
        (["test_1.jsonl", "test_2.jsonl"], [None, None]),
        (["one.jsonl", "two.jsonl"], [None, None]),
        (["hf://owner/test", "train.jsonl"], [None, None]),
    ],
)
def test_files_named_together_are_splits_by_their_names(files: list[str], splits: list[str | None]) -> None:
    assert splits_of_files(files) == splits


def test_files_curated_without_a_recipe_keep_their_splits(tmp_path: Path) -> None:
    rows = many(120)[::3]
    write_source(rows[:30], tmp_path / "train.jsonl")
    write_source([*rows[30:], rows[0]], tmp_path / "test.jsonl")
    run = curate(recipe_of_data(["train.jsonl", "test.jsonl"], base=tmp_path))
    assert run.manifest.finished_counts().test == 11
    leak = run.ledger().filter(id="train:0").row(0, named=True)
    assert (leak["action"], leak["witness"]) == ("drop", "test:10")
    assert json.loads(run.manifest_path.read_text())["splits_of_data"]


@given(
    st.lists(st.tuples(st.sampled_from(["train", "test", "validation"]), st.integers(0, 3)), min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=6),
)
def test_leaked_rows_are_those_that_plain_loops_count(
    rows: list[tuple[str, int]], pairs: list[tuple[int, int]]
) -> None:
    pairs = [(one, two) for one, two in pairs if max(one, two) < len(rows)]
    joined = {frozenset((rows[one][1], rows[two][1])) for one, two in pairs}

    def leaked(*, near: bool) -> int:
        return sum(
            any(
                split == "train" and (other == label or (near and frozenset((other, label)) in joined))
                for split, other in rows
            )
            for held_out, label in rows
            if held_out != "train"
        )

    table = np.asarray(pairs, np.uint32).reshape(-1, 2)
    records = given_split_leakage(
        pl.Series([split for split, _ in rows]),
        {"near": (table[:, 0], table[:, 1])},
        same=np.asarray([label for _, label in rows], np.uint32),
    )
    counts = {record.measure: record.rows for record in records}
    assert counts == {"exact": leaked(near=False), "near": leaked(near=True), "any": leaked(near=True)}
    assert {record.held_out for record in records} == {sum(split != "train" for split, _ in rows)}


def test_prompts_of_one_kind_leak_from_drawn_splits_but_not_from_given_ones(tmp_path: Path) -> None:
    capitals = {"Spain": "Madrid", "Italy": "Rome", "Russia": "Moscow", "Egypt": "Cairo", "Kenya": "Nairobi"}
    rows = [
        {"instruction": f"What is the capital of {country}?", "output": f"It is {city}.", "split": split}
        for (country, city), split in zip(capitals.items(), ["train", "train", "test", "train", "train"], strict=True)
    ]
    write_source(rows, tmp_path / "rows.jsonl")
    run = run_with(tmp_path)
    assert curated(run, "train") == {"s:0", "s:1", "s:3", "s:4"}
    assert run.manifest.certificate.thresholds["near"] == pytest.approx(0.8)
    ordered = run_with(tmp_path, run="ordered", splits={"near": 0.6}, encoder=None)
    assert curated(ordered, "train") == set()
    drawn = [{**row, "split": ""} for row in rows] + many(40)
    write_source(drawn, tmp_path / "rows.jsonl")
    groups = run_with(tmp_path, run="drawn", splits={"test": 4}, encoder=None)
    assert groups.manifest.certificate.thresholds["near"] == pytest.approx(0.6)
    assert len(set(groups.rows().head(5)["group"])) == 1
