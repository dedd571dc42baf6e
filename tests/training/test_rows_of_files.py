"""From a file to token ids: thoughts, tools and calls reach the chat template whatever the file's format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from siftune.curation.ingest.sources import read_sources
from siftune.curation.recipe.sections import Source
from siftune.training import masks
from tests.training import chat_template_table as table

PLACE = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "How it is.", "parameters": PLACE}}
#: Each call has other arguments: Arrow gives every call the arguments of all of them, null where it has none.
ROWS: list[dict[str, Any]] = [
    {
        "messages": [
            {"role": "user", "content": f"What is row {number}?"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": arguments}}],
            },
            {"role": "tool", "content": "dry"},
            {"role": "assistant", "content": f"Row {number} is dry.", "reasoning_content": f"A thought on {number}."},
        ],
        "tools": [WEATHER],
    }
    for number, arguments in enumerate([{"place": "Bergen", "hours": 6}, {"day": "today"}, {"place": "Rome"}])
]


def tokens(folder: Path, name: str, template: str) -> masks.TokenRows:
    out = folder / "examples.parquet"
    read_sources([Source(path=name, name="rows")], base=folder, out=out, quarantine=folder / "quarantine.jsonl")
    return masks.tokenise(table.tokenizer_for(table.templates()[template]), pl.read_parquet(out), max_length=100_000)


@pytest.mark.parametrize("template", ["qwen3", "llama3_1", "smollm2"])
def test_the_same_rows_from_jsonl_and_parquet_are_the_same_tokens(tmp_path: Path, template: str) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    lines, parquet = (tokens(tmp_path, name, template) for name in ("rows.jsonl", "rows.parquet"))
    assert lines.names == parquet.names == ["rows:0", "rows:1", "rows:2"]
    assert lines.hashes() == parquet.hashes()
    assert lines.warnings == parquet.warnings


def test_thoughts_tools_and_calls_are_passed_to_a_template_that_takes_them(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    tokenizer = table.tokenizer_for(table.templates()["qwen3"])
    rows = tokens(tmp_path, "rows.jsonl", "qwen3")
    assert rows.warnings == ()
    prompt = tokenizer.decode(rows.ids[1][: int(rows.trained[1].argmax())])
    trained = tokenizer.decode(rows.ids[1][rows.trained[1]])
    assert json.dumps(WEATHER) in prompt
    assert '{"name": "weather", "arguments": {"day": "today"}}' in trained
    assert "A thought on 1." in trained
    assert trained.endswith("Row 1 is dry.<|im_end|>")

    said = tokens(tmp_path, "rows.jsonl", "smollm2").warnings
    assert [next(word for word in ("tool_calls", "thought", "tools") if word in line) for line in said] == [
        "tool_calls",
        "thought",
        "tools",
    ]
