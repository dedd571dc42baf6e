"""For each layout and format: the texts that are written are the texts that are read, row for row."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from siftune.curation.formats.detection import FORMATS, REFERENCE_FORMATS
from siftune.curation.formats.faults import REASONS
from siftune.curation.ingest.file_kinds import COMPRESSED_ENDINGS, ENDINGS
from siftune.curation.ingest.file_rows import read_rows
from siftune.curation.ingest.row_conversion import RowConverter, as_object

#: Words with what separators, quotes and escapes are made of; a text begins and ends with a letter.
_PIECES = st.sampled_from(
    ["a", "é", "\u2028", '"', "'", ",", ";", "|", "\\", "{", "[", "}", " ", "  ", "nan", "\\n", "=", "日"]
)
TEXT = st.lists(_PIECES, max_size=8).map(lambda pieces: f"w{''.join(pieces)}w")
LINES = st.lists(TEXT, min_size=1, max_size=3).map("\n".join)
ROWS = st.lists(st.fixed_dictionaries({"question": LINES, "answer": LINES}), min_size=2, max_size=5)


def _csv(rows, separator):
    """A table; cells that are no texts are the JSON text of their values."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), delimiter=separator)
    writer.writeheader()
    writer.writerows(
        {name: cell if isinstance(cell, str) else _dump(cell) for name, cell in row.items()} for row in rows
    )
    return stream.getvalue()


def _table(rows, kind):
    table, sink = pa.Table.from_pylist(rows), pa.BufferOutputStream()
    if kind == "parquet":
        pq.write_table(table, sink)
    else:
        with (pa.ipc.new_file if kind == "file" else pa.ipc.new_stream)(sink, table.schema) as writer:
            writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _columns(rows):
    return {name: [row[name] for row in rows] for name in rows[0]}


def _dump(value, **options):
    return json.dumps(value, ensure_ascii=False, **options)


WRITERS = {
    "lines.jsonl": lambda rows: "\n".join(map(_dump, rows)),
    "lines.json": lambda rows: "\n".join(map(_dump, rows)),
    "array.json": _dump,
    "array.jsonl": _dump,
    "indented-array.jsonl": lambda rows: _dump(rows, indent=2),
    "indented.jsonl": lambda rows: "\n".join(_dump(row, indent=2) for row in rows),
    "indented.json": lambda rows: "\n".join(_dump(row, indent=2) for row in rows),
    "commas.jsonl": lambda rows: ",\n".join(map(_dump, rows)),
    "wrapper.json": lambda rows: _dump({"n": 1, "items": rows}, indent=1),
    "wrapper.jsonl": lambda rows: _dump({"data": rows}),
    "by-column.json": lambda rows: _dump(_columns(rows)),
    "by-column-objects.json": lambda rows: _dump({k: dict(enumerate(v)) for k, v in _columns(rows).items()}),
    "by-index.json": lambda rows: _dump(dict(enumerate(rows))),
    "split.json": lambda rows: _dump(
        {"columns": list(rows[0]), "data": [[row[name] for name in rows[0]] for row in rows]}
    ),
    "comma.csv": lambda rows: _csv(rows, ","),
    "semicolon.csv": lambda rows: _csv(rows, ";"),
    "bar.csv": lambda rows: _csv(rows, "|"),
    "tab.tsv": lambda rows: _csv(rows, "\t"),
    "a.parquet": lambda rows: _table(rows, "parquet"),
    "file.arrow": lambda rows: _table(rows, "file"),
    "stream.arrow": lambda rows: _table(rows, "stream"),
}
PACKERS = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}


#: A question and an answer as a row of each format.
ROWS_OF = {
    "preference": lambda q, a: {"prompt": q, "chosen": a, "rejected": "no"},
    "messages": lambda q, a: {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]},
    "sharegpt": lambda q, a: {"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]},
    "alpaca": lambda q, a: {"instruction": q, "input": "", "output": a},
    "question_answer": lambda q, a: {"question": q, "answer": a},
    "prompt_completion": lambda q, a: {"prompt": q, "completion": a},
    "marked_text": lambda q, a: {"text": f"<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n{a}<|im_end|>\n"},
}


def test_every_format_has_a_row():
    assert set(ROWS_OF) == set(FORMATS)


def test_the_documentation_lists_layouts_formats_endings_and_reasons():
    page = (Path(__file__).parents[3] / "docs" / "data_formats.md").read_text(encoding="utf-8")
    for name in (*WRITERS, *FORMATS, *REFERENCE_FORMATS, *ENDINGS, *COMPRESSED_ENDINGS):
        assert f"`{name}`" in page, name
    for row_format in FORMATS.values():
        assert f"| `{row_format.name}` | {', '.join(row_format.required)} |" in page
    for reason, meaning in REASONS.items():
        assert f"| `{reason}` | {meaning} |" in page


@pytest.mark.parametrize("layout", WRITERS)
@settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pairs=st.lists(st.tuples(LINES, LINES), min_size=2, max_size=4))
def test_questions_and_answers_of_every_format_in_every_layout(tmp_path, layout, pairs):
    for name, row_of in ROWS_OF.items():
        written = WRITERS[layout]([row_of(question, answer) for question, answer in pairs])
        path = tmp_path / layout
        path.write_bytes(written if isinstance(written, bytes) else written.encode())
        rows = list(map(as_object, read_rows(path, warn=lambda _: None)))
        converter = RowConverter(rows, where=layout)
        read = [converter.convert(row, split=None, own_split=True)[1] for row in rows]
        assert [tuple(turn.content for turn in example.turns) for example in read] == pairs, name
        assert list(converter.formats) == [name]


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, packing=st.sampled_from(sorted(PACKERS)))
def test_texts_written_are_texts_read(tmp_path, name, rows, packing):
    written = WRITERS[name](rows)
    path = tmp_path / (name + packing)
    path.write_bytes(PACKERS[packing](written if isinstance(written, bytes) else written.encode()))
    assert list(read_rows(path, warn=lambda _: None)) == rows
