"""A curated set as a source: a second pass finds what the first one left, and rows come back as they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import yaml

from siftune.curation.ingest.curated_sets import CuratedNotes
from siftune.curation.pipeline import curate
from siftune.curation.run.folder import RunFolder
from tests.worlds import many, write_source

TASK = "Read the following question twice and answer it in plain words, please:"


def run_over(folder: Path, source: str, run: str, **sections: Any) -> RunFolder:
    document = {"sources": [{"path": source, "name": "s"}], "encoder": None, "run": run, **sections}
    (folder / f"{run}.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    return curate(folder / f"{run}.yaml")


def texts_of(run: RunFolder) -> list[tuple[str, str]]:
    kept = run.rows().filter(fate="kept").select("id")
    texts = pl.read_parquet(run.texts).join(kept, on="id", how="semi", maintain_order="left")
    return texts.select("core", "source").rows()


def test_templates_of_the_whole_data_are_known_in_the_second_pass(tmp_path: Path) -> None:
    # 60 prompts share the task; 40 of them are dropped as duplicates, and 20 alone would make no template.
    rows = many(180)[::3][:20]
    rows = [{**row, "instruction": f"{TASK} {row['instruction']}"} for row in rows]
    copies = [{"instruction": f"{row['instruction']} {mark}", "output": row["output"]} for row in rows for mark in "?!"]
    write_source(rows + copies, tmp_path / "s.jsonl")
    first = run_over(tmp_path, "s.jsonl", "first")
    assert first.manifest.counts.kept == 20
    assert not any("plain words" in core for core, _ in texts_of(first))
    second = run_over(tmp_path, "first/curated", "second")
    assert texts_of(second) == texts_of(first)
    # With other settings of templates they are counted anew.
    other = run_over(tmp_path, "first/curated", "other", keys={"template_rows": 30})
    assert all("plain words" in core for core, _ in texts_of(other))
    # The third pass knows them too.
    assert texts_of(run_over(tmp_path, "second/curated/train.parquet", "third")) == texts_of(first)


def test_a_second_pass_with_splits_and_balance_drops_nothing(tmp_path: Path) -> None:
    rows = many(240)
    rows = [{**row, "instruction": " ".join([row["instruction"]] * (1 + at % 7 // 2))} for at, row in enumerate(rows)]
    write_source(rows, tmp_path / "s.jsonl")
    sections = {"splits": {"test": 6, "validation": 4}, "balance": {"target": "uniform", "bins": 3}}
    first = run_over(tmp_path, "s.jsonl", "first", **sections)
    dropped = set(first.ledger().filter(action="drop")["stage"])
    assert {"near", "splits", "balance"} <= dropped
    second = run_over(tmp_path, "first/curated", "second", **sections)
    assert second.ledger().filter(action="drop").is_empty()
    assert second.manifest.counts.test == first.manifest.counts.test == 6
    # Other settings balance again.
    sections["balance"] = {"target": "uniform", "bins": 3, "rows": 20}
    assert run_over(tmp_path, "first/curated", "third", **sections).manifest.counts.train == 20


def test_rows_come_back_with_their_source_and_the_marks_of_their_turns(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "What is it?"},
        {"role": "assistant", "content": "A first try.", "weight": 0},
        {"role": "user", "content": "Say it again."},
        {"role": "assistant", "content": "The answer.", "name": "guide"},
    ]
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": turns, "tools": [{"name": "f"}], "split": "x"}) + "\n")
    write_source([{"instruction": "Name a river.", "output": "The Elbe."}], tmp_path / "b.jsonl")
    document = {"sources": [{"path": "a.jsonl"}, {"path": "b.jsonl"}], "encoder": None, "run": "first"}
    (tmp_path / "first.yaml").write_text(yaml.safe_dump(document))
    first = pl.read_parquet(curate(tmp_path / "first.yaml").examples)
    again = run_over(tmp_path, "first/curated", "second")
    second = pl.read_parquet(again.examples)
    assert second["id"].to_list() == ["s:0", "s:1"]
    assert second.select("source", "messages").equals(first.select("source", "messages"))
    for one, other, name in zip(first["meta"], second["meta"], ["a", "b"], strict=True):
        curated = {"_curated": {"id": f"{name}:0", "source": name}}
        assert json.loads(other) == json.loads(one) | curated
    third = pl.read_parquet(run_over(tmp_path, "second/curated/train.parquet", "third").examples)
    assert third.select("source", "messages", "meta").equals(second.select("source", "messages", "meta"))
    assert again.manifest.inputs[0].format == "messages"


def test_a_file_that_was_changed_is_read_as_any_other(tmp_path: Path) -> None:
    write_source(many(30), tmp_path / "s.jsonl")
    path = run_over(tmp_path, "s.jsonl", "first").path / "curated" / "train.parquet"
    notes = CuratedNotes.read(path)
    assert notes is not None
    assert notes.templates is not None
    table = pq.read_table(path)
    for metadata in ({}, {"siftune": "{"}, {"siftune": json.dumps({"templates": "{}", "common": "", "balance": None})}):
        pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "changed.parquet")
        assert CuratedNotes.read(tmp_path / "changed.parquet") is None
    pq.write_table(table.drop(["meta"]), tmp_path / "changed.parquet")
    assert CuratedNotes.read(tmp_path / "changed.parquet") is None
    # Fewer rows with the same notes are a part of the curated set.
    pq.write_table(table[:5].replace_schema_metadata(notes.metadata()), tmp_path / "changed.parquet")
    part = CuratedNotes.read(tmp_path / "changed.parquet")
    assert part is not None
    assert part.metadata() == notes.metadata()
