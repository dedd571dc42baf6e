"""Damaged files and hostile rows: the rest of the file is read, every row is accounted for."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation.formats.faults import REASONS
from siftune.curation.ingest.json_reader import TRUNCATED
from siftune.curation.ingest.sources import read_sources
from siftune.curation.recipe.sections import Source

ROWS = [{"question": f"q{i} ü", "answer": f"a{i}", "turns": [{"x": 1}, {"x": 2}]} for i in range(200)]
LINES = [json.dumps(row, ensure_ascii=False).encode() for row in ROWS]
JSONL = b"\n".join(LINES) + b"\n"


def read(base: Path, name: str, data: bytes, **options):
    (base / name).write_bytes(data)
    out, faults = base / "out.parquet", base / "faults.jsonl"
    report = read_sources([Source(path=name, **options)], base=base, out=out, quarantine=faults)
    quarantine = [json.loads(line) for line in faults.read_bytes().split(b"\n") if line]
    (source,) = report.sources
    frame = pl.read_parquet(out)
    assert source.rows == frame.height + len(quarantine)
    ids = sorted(int(row_id.rsplit(":", 1)[1]) for row_id in [*frame["id"], *(line["id"] for line in quarantine)])
    assert ids == list(range(source.rows))
    assert all(line["reason"] in REASONS and len(line["raw"]) <= 2000 for line in quarantine)
    return source, frame, quarantine


def rows_and_reasons(quarantine):
    return [(line["row"], line["reason"]) for line in quarantine]


BAD_LINES = {
    b"{broken": "bad_json",
    b'{"question": "q\xff", "answer": "a"}': "bad_encoding",
    b'{"question": "q\x00", "answer": "a"}': "nul_byte",
    b'{"question": "q\\u0000", "answer": "a"}': "nul_byte",
    b'{"question": "q\\ud83d", "answer": "a"}': "lone_surrogate",
    b'{"question": "q", "answer": "a", "x": "\\udc00"}': "lone_surrogate",
    b"[1, 2]": "not_an_object",
    b'"text"': "not_an_object",
    b"null": "not_an_object",
    b"{}": "missing_prompt",
    b'{"question": "q"}': "missing_answer",
    b'{"question": "q", "answer": ""}': "empty_answer",
    b'{"question": "q", "answer": {"a": 1}}': "wrong_type",
    b'{"question": "q", "answer": "' + b"x" * 10_000_000 + b'"}': "oversized_cell",
    b"[" * 100_000: "bad_json",
    b'{"question": "q", "answer": "a", "x": ' + b"[" * 300 + b"]" * 300 + b"}": "wrong_type",
    b'{"question": "q", "answer": "a", "x": ' + b"[" * 5_000 + b"]" * 5_000 + b"}": "bad_json",
    # Python's parser, which takes NaN, has another limit in each version.
    b'{"question": "q", "answer": "a", "x": ' + b"[" * 600 + b"NaN" + b"]" * 600 + b"}": "bad_json",
}


def test_bad_lines_cost_only_themselves(tmp_path):
    lines = [line for bad in BAD_LINES for line in (LINES[0], bad)]
    source, frame, quarantine = read(tmp_path, "a.jsonl", b"\n".join([*lines, LINES[1], b""]))
    assert rows_and_reasons(quarantine) == [(2 * index + 1, reason) for index, reason in enumerate(BAD_LINES.values())]
    assert frame.height == len(BAD_LINES) + 1
    assert quarantine[0] == {
        "id": "a:1",
        "source": "a",
        "file": "a.jsonl",
        "row": 1,
        "reason": "bad_json",
        "detail": quarantine[0]["detail"],
        "raw": "{broken",
    }
    assert source.warnings == []


def test_the_same_bad_rows_in_an_array(tmp_path):
    bad = {line: reason for line, reason in BAD_LINES.items() if line.startswith(b'{"') and not line.endswith(b"]}")}
    rows = [row for line in bad for row in (LINES[0], line)]
    _, frame, quarantine = read(tmp_path, "a.json", b"[" + b",\n".join([*rows, LINES[1]]) + b"]")
    expected = [reason if b"\x00" not in line else "bad_json" for line, reason in bad.items()]
    assert rows_and_reasons(quarantine) == [(2 * index + 1, reason) for index, reason in enumerate(expected)]
    assert frame.height == len(bad) + 1


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_file_cut_in_the_middle_of_a_row_loses_that_row_and_says_so(tmp_path, name, pack):
    whole = JSONL if name == "a.jsonl" else b"[\n " + b",\n ".join(LINES) + b"]\n"
    at = whole.index(b"q100") + 1
    source, frame, quarantine = read(tmp_path, name, pack(whole[:at]))
    assert (frame.height, rows_and_reasons(quarantine)) == (100, [(100, "truncated")])
    assert source.warnings == [f"{name}: {TRUNCATED}"]


def test_a_gzip_cut_at_any_byte_keeps_every_whole_row(tmp_path):
    packed = gzip.compress(JSONL)
    for at in range(30, len(packed), len(packed) // 13):
        source, frame, quarantine = read(tmp_path, "a.jsonl.gz", packed[:at])
        assert frame["id"].to_list() == [f"a:{row}" for row in range(frame.height)]
        assert [line["reason"] for line in quarantine] in ([], ["truncated"])
        assert "a.jsonl.gz: the .gz file is truncated" in source.warnings
    assert frame.height > 100


def test_a_damaged_gzip_says_so(tmp_path):
    packed = bytearray(gzip.compress(JSONL + bytes(range(32, 127)) * 3_000, compresslevel=1))
    packed[-4:] = b"\0\0\0\0"
    source, _, _ = read(tmp_path, "a.jsonl.gz", bytes(packed))
    assert any("damaged" in warning for warning in source.warnings)


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_an_array_cut_anywhere_loses_at_most_one_row(tmp_path, cut):
    whole = json.dumps(ROWS, indent=1).encode()
    at = whole.index(b'"q100') + cut * 3
    source, frame, quarantine = read(tmp_path, "a.json", whole[:at])
    assert frame.height in (100, 101)
    assert source.rows - frame.height == len(quarantine) <= 1
    assert len(source.warnings) == 1


def test_a_broken_row_in_an_array_costs_only_itself(tmp_path):
    broken = [LINES[0], LINES[1], LINES[2].replace(b'"answer"', b'"answer'), *LINES[3:]]
    _, frame, quarantine = read(tmp_path, "a.json", b"[" + b", ".join(broken) + b"]")
    assert (frame.height, rows_and_reasons(quarantine)) == (199, [(2, "bad_json")])
    wrapped = b'{"data": [' + b", ".join([LINES[0], b"{,}", *LINES[1:]]) + b"]}"
    assert read(tmp_path, "b.json", wrapped)[1].height == 200


def test_an_array_that_is_broken_beyond_repair_is_one_row(tmp_path):
    source, frame, quarantine = read(tmp_path, "a.json", b"[" + LINES[0] + b", oh no, and so on]")
    assert (frame.height, rows_and_reasons(quarantine)) == (1, [(1, "bad_json")])
    assert "not valid" in source.warnings[0]


CSV = 'question,answer\nq0,"a\n0"\nq1\nq2,a2,x\n\nq3,"say ""hi"""\n'


def test_csv_records(tmp_path):
    _, frame, quarantine = read(tmp_path, "a.csv", CSV.encode() + b"q\xff,a\nq5,a5")
    assert frame["messages"].list.last().struct.field("content").to_list() == ["a\n0", 'say "hi"', "a5"]
    assert rows_and_reasons(quarantine) == [(1, "ragged_row"), (2, "ragged_row"), (4, "bad_encoding")]
    assert quarantine[0]["raw"] == "q1\n"


@pytest.mark.parametrize("tail", ['q9,"open\nand on', "q9"])
def test_csv_cut_in_the_middle(tmp_path, tail):
    source, frame, quarantine = read(tmp_path, "a.csv", (CSV + tail).encode())
    assert frame.height == 2
    assert rows_and_reasons(quarantine)[-1] == (4, "truncated")
    assert source.warnings == [f"a.csv: {TRUNCATED}"]


def test_csv_cells_that_are_too_large(tmp_path):
    large, swallowed = "x" * 10_000_000, "open\n" * 2_100_000
    data = f'question,answer\nq,{large}y\nq1,a1\nq,{large}\n"{swallowed}\nq2,a2\n'
    _, frame, quarantine = read(tmp_path, "a.csv", data.encode())
    assert {line["reason"] for line in quarantine[:2]} == {"oversized_cell"}
    assert frame["id"][0] == "a:1"
    assert frame["messages"].list.last().struct.field("content").to_list()[-1] == "a2"


def test_parquet_with_text_that_is_not_utf8(tmp_path):
    import pyarrow.parquet as pq

    raw = pa.array([b"a0", b"\xff", b"a2"], pa.binary())
    table = pa.table({"question": ["q0", "q1", "q2"], "answer": pa.Array.from_buffers(pa.string(), 3, raw.buffers())})
    pq.write_table(table, tmp_path / "x.parquet")
    _, frame, quarantine = read(tmp_path, "a.parquet", (tmp_path / "x.parquet").read_bytes())
    assert (frame.height, rows_and_reasons(quarantine)) == (2, [(1, "bad_encoding")])


@pytest.mark.parametrize("stream", [True, False])
def test_arrow_cut_in_the_middle_keeps_whole_batches(tmp_path, stream):
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(ROWS)
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=50)
    data = sink.getvalue().to_pybytes()
    source, frame, _ = read(tmp_path, "a.arrow", data[: len(data) * 6 // 10])
    assert frame.height in (50, 100)
    assert "truncated" in source.warnings[0]


def test_values_that_json_has_no_word_for_survive_in_meta(tmp_path):
    import datetime as dt
    import decimal

    import pyarrow.parquet as pq

    odd = {"when": dt.datetime(2026, 1, 2), "price": decimal.Decimal("1.10"), "blob": b"\x00\xff", "no": None}
    pq.write_table(pa.Table.from_pylist([{"question": "q", "answer": "a", **odd}]), tmp_path / "x.parquet")
    _, frame, _ = read(tmp_path, "a.parquet", (tmp_path / "x.parquet").read_bytes())
    assert json.loads(frame["meta"][0]) == {"when": "2026-01-02T00:00:00", "price": "1.10", "blob": "00ff", "no": None}


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
@pytest.mark.parametrize("data", [b"", b"\n", b" \n\n"])
def test_files_of_no_rows(tmp_path, name, data):
    source, frame, _ = read(tmp_path, name, data)
    assert (source.rows, frame.height) == (0, 0)
    assert "it holds no rows" in source.warnings


TEXT = st.text(max_size=8) | st.sampled_from(["", " ", "\0", "a\u2028b", "é", "x" * 30])
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
ROLES = st.sampled_from(["human", "gpt", "system", "tool", "function_call", "user", "odd", "", "\ud800"])
TURN = st.fixed_dictionaries({"from": ROLES | JUNK, "value": TEXT | JUNK}) | JUNK
COLUMNS = {
    "alpaca": {"instruction": TEXT | JUNK, "input": TEXT | JUNK, "output": TEXT | JUNK, "history": JUNK},
    "sharegpt": {"conversations": st.lists(TURN, max_size=5) | JUNK, "system": TEXT | JUNK},
    "messages": {"messages": st.lists(TURN, max_size=5) | JUNK},
    "question_answer": {"question": TEXT | JUNK, "answer": TEXT | JUNK, "choices": JUNK},
    "prompt_completion": {"prompt": TEXT | JUNK, "completion": st.lists(TURN, max_size=3) | JUNK},
    "preference": {"chosen": st.lists(TURN, max_size=3) | JUNK, "rejected": JUNK, "prompt": TEXT | JUNK},
}
GOOD = {
    "alpaca": {"instruction": "q", "output": "a"},
    "sharegpt": {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    "messages": {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
    "question_answer": {"question": "q", "answer": "a"},
    "prompt_completion": {"prompt": "q", "completion": "a"},
    "preference": {"prompt": "q", "chosen": "a", "rejected": "b"},
}


@pytest.mark.parametrize("name", COLUMNS)
@given(data=st.data())
def test_garbage_is_conserved_in_every_format(tmp_path, name, data):
    optional = {**COLUMNS[name], "split": JUNK, "extra": JUNK}
    rows = data.draw(st.lists(st.fixed_dictionaries({}, optional=optional) | JUNK, max_size=8))
    written = b"\n".join(json.dumps(row).encode() for row in [GOOD[name], *rows])
    source, frame, _ = read(tmp_path, "a.jsonl", written, format=name)
    assert source.rows == len(rows) + 1
    assert frame["id"][0] == "a:0"
    for messages, meta in frame.select("messages", "meta").iter_rows():
        assert any(turn["role"] == "assistant" for turn in messages)
        assert all(turn["content"].strip() for turn in messages if turn["role"] == "assistant")
        assert isinstance(json.loads(meta), dict)
    array = json.dumps([GOOD[name], *rows], indent=data.draw(st.sampled_from([None, 1]))).encode()
    again, same, _ = read(tmp_path, "a.json", array, format=name)
    assert again.quarantined == source.quarantined
    assert same.equals(frame)


@given(lines=st.lists(st.binary(max_size=40).filter(lambda line: b"\n" not in line), max_size=8))
def test_random_bytes_are_conserved(tmp_path, lines):
    written = [LINES[0], *lines, LINES[1]]
    source, frame, _ = read(tmp_path, "a.jsonl", b"\n".join(written))
    assert source.rows == sum(1 for line in written if line and not line.isspace())
    assert frame["id"][-1] == f"a:{source.rows - 1}"


@given(at=st.integers(0, len(JSONL) - 1), byte=st.integers(0, 255))
def test_one_wrong_byte_costs_at_most_two_rows(tmp_path, at, byte):
    data = bytearray(JSONL)
    data[at] = byte
    _, frame, quarantine = read(tmp_path, "a.jsonl", bytes(data))
    assert frame.height >= len(LINES) - 2
    assert len(quarantine) <= 2
    rebuilt = b"[" + b",".join(LINES) + b"]"
    data = bytearray(rebuilt)
    data[min(max(at, 1), len(rebuilt) - 2)] = byte
    assert read(tmp_path, "a.json", bytes(data))[1].height >= len(LINES) - 3
