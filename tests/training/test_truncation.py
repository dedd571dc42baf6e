"""Rows that training truncated are in the ledger of the run, behind what curation decided."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from siftune.curation import schema
from siftune.curation.pipeline import curate
from siftune.curation.review.explain import explain
from siftune.curation.run.folder import RunFolder
from siftune.training import truncation
from siftune.training.arms import train
from siftune.training.evaluation.evaluate import evaluate
from tests.training.worlds import toy_messages, write_tiny_run
from tests.worlds import many, write_recipe, write_source


def truncated(*ids: str, tokens: float = 300.0) -> pl.DataFrame:
    frame = pl.DataFrame({"id": ids}, schema={"id": pl.String})
    values = {"action": pl.lit("truncate"), "reason": pl.lit("max_length"), "score": pl.lit(tokens)}
    return schema.conform(frame.with_columns(**values), schema.LEDGER)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    write_source([*many(40), {"instruction": "Nothing", "output": ""}], tmp_path / "s.jsonl")
    return write_recipe(tmp_path, "s.jsonl")


@pytest.fixture
def run(recipe: Path) -> RunFolder:
    return curate(recipe)


def test_curation_stays_the_beginning_and_its_bytes_come_back(run: RunFolder, recipe: Path) -> None:
    path = run.path / "ledger.parquet"
    curated, before = run.ledger(), path.read_bytes()
    assert curated.height
    truncation.record(run.path, truncation.training_stage("raw"), truncated("s:1", "s:2"))
    assert run.ledger().head(curated.height).equals(curated)
    assert run.ledger()["step"].is_sorted()
    curate(recipe)
    assert path.read_bytes() == before


def test_the_order_of_entries_and_repetitions_leave_the_same_bytes(run: RunFolder) -> None:
    path = run.path / "ledger.parquet"
    parts = {
        "train/raw": truncated("s:1", "s:2"),
        "train/curated": truncated("s:2"),
        "judge": truncated("s:3"),
        "train/random": truncated(),
    }
    for stage, part in parts.items():
        truncation.record(run.path, stage, part)
    once = path.read_bytes()
    for stage, part in reversed(parts.items()):
        truncation.record(run.path, stage, truncated("s:9"))
        truncation.record(run.path, stage, part)
    assert path.read_bytes() == once
    ledger = run.ledger().filter(action="truncate")
    assert ledger["stage"].to_list() == ["train/raw", "train/raw", "train/curated", "judge"]
    assert ledger["step"].n_unique() == 3


def test_an_arm_that_is_truncated_no_longer_leaves_no_trace(run: RunFolder) -> None:
    before = run.ledger()
    truncation.record(run.path, truncation.training_stage("raw"), truncated("s:1"))
    truncation.record(run.path, truncation.training_stage("raw"), truncated())
    assert run.ledger().equals(before)


def test_a_truncated_row_explains_it(run: RunFolder) -> None:
    truncation.record(run.path, truncation.training_stage("raw"), truncated("s:1"))
    assert [chapter.decision["stage"] for chapter in explain(run, "s:1").chapters] == ["train/raw"]


def test_training_and_evaluation_record_what_they_truncate(tmp_path: Path, tiny_model: Path) -> None:
    run = write_tiny_run(tmp_path / "run", model=tiny_model, max_length=110, budget={"steps": 1})
    results = train(run, arms=["raw", "curated"])
    evaluations = evaluate(run)
    ledger = RunFolder.open(run).ledger()
    counts = dict(ledger["stage"].value_counts().iter_rows())
    by_arm = {f"train/{result.arm}": result.truncated_rows for result in results}
    assert counts == {**by_arm, "judge": evaluations[0].truncated_rows}
    assert min(counts.values()) > 0
    longest = ledger.filter(stage="train/raw").row(0, named=True)
    assert longest["score"] > longest["threshold"] == 110
    assert toy_messages(int(longest["id"].split(":")[1]))
    before = (run / "ledger.parquet").read_bytes()
    train(run, arms=["raw", "curated"])
    evaluate(run)
    assert (run / "ledger.parquet").read_bytes() == before
