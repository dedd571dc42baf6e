"""What a person is told of a run besides its numbers."""

from __future__ import annotations

import itertools
from pathlib import Path

import polars as pl
import pytest

from siftune.curation import schema
from siftune.curation.atomic_files import write_parquet
from siftune.curation.review import funnel
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.manifest import FORMAT, Manifest, SourceRecord, StageRecord, WriterRecord


def run_with(folder: Path, **parts: object) -> RunFolder:
    run = RunFolder(folder)
    Manifest(siftune=WriterRecord(format=FORMAT), **parts).write(run.manifest_path)
    return run


def test_rows_dropped_by_hand_are_a_step_of_the_funnel() -> None:
    stages = [
        StageRecord(stage="ingest", rows=10, kept=9, actions={"quarantine": 1}),
        StageRecord(stage="near", rows=7, kept=5, actions={"drop": 2, "guard": 1_500, "report": 3}),
        StageRecord(stage="splits", rows=5, kept=5),
    ]
    steps = funnel.funnel(Manifest(siftune=WriterRecord(format=FORMAT), stages=stages))
    assert [(step.stage, step.rows, step.removed, step.kept) for step in steps] == [
        ("ingest", 10, 1, 9),
        ("overrides", 9, 2, 7),
        ("near", 7, 2, 5),
        ("splits", 5, 0, 5),
    ]
    assert [funnel.other_decisions(step) for step in steps] == ["", "", "1,500 guarded, 3 reported", ""]


@pytest.mark.parametrize(
    ("search", "recall", "words"),
    [
        (
            "faiss IVF64, nprobe 8",
            "0.9931",
            ["faiss IVF64, nprobe 8", "estimated 99.3 %", "2,000 sampled"],
        ),
        ("exact, among 900 of 4,000 rows", "0.9950", ["among 900 of 4,000 rows", "99.5 %"]),
        ("faiss IVF64, nprobe 8", "nan", ["not known"]),
    ],
)
def test_a_search_that_may_miss_pairs_is_told_with_its_recall(
    tmp_path: Path, search: str, recall: str, words: list[str]
) -> None:
    run = run_with(tmp_path, notes={"semantic": {"search": search, "recall": recall, "sampled": "2000"}})
    (warning,) = funnel.warnings(run)
    assert warning.startswith("semantic: ")
    for word in words:
        assert word in warning


def test_an_exact_search_needs_no_warning(tmp_path: Path) -> None:
    run = run_with(tmp_path, notes={"semantic": {"search": "exact", "recall": "1.0000", "sampled": "0"}})
    assert funnel.warnings(run) == []


def test_warnings_of_a_source_and_its_quarantine_are_told(tmp_path: Path) -> None:
    counts = {"name": "s", "path": "s.jsonl", "format": "alpaca", "rows": 9, "examples": 7}
    source = SourceRecord(**counts, quarantined={"no_answer": 2}, warnings=["a line was cut"])
    assert funnel.warnings(run_with(tmp_path, inputs=[source])) == [
        "s: a line was cut",
        "s: rows that cannot be used are in quarantine.jsonl: 2 no answer",
    ]


def test_a_source_that_loses_more_than_half_of_its_rows_is_named(tmp_path: Path) -> None:
    run = run_with(tmp_path)
    fates = {"few": ["kept", "kept", "dropped", "dropped"], "many": ["kept", "dropped", "dropped"]}
    rows = pl.DataFrame(
        [{"id": f"{name}:{i}", "source": name, "fate": fate} for name in fates for i, fate in enumerate(fates[name])]
    )
    write_parquet(schema.conform(rows, schema.ROWS), run.rows_path, checked=True)
    assert funnel.warnings(run) == ["many: curation dropped 66.7 % of its 3 rows"]


def test_what_decides_on_no_row_is_no_step_of_the_funnel() -> None:
    """Topics are found over all rows that were read, diversity is measured over training rows."""
    counts = [("ingest", 10, 10), ("near", 10, 8), ("topics", 10, 10), ("balance", 8, 6), ("diversity", 5, 5)]
    stages = [StageRecord(stage=stage, rows=rows, kept=kept) for stage, rows, kept in [*counts, ("write", 6, 6)]]
    steps = funnel.funnel(Manifest(siftune=WriterRecord(format=FORMAT), stages=stages))
    assert [step.stage for step in steps] == ["ingest", "near", "balance", "write"]
    assert all(step.rows == before.kept for before, step in itertools.pairwise(steps))
