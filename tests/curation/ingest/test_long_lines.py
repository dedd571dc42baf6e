"""Lines that are longer than a row may be: one row each with its reason, and what is around them is read."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from siftune.curation.errors import UserError
from siftune.curation.formats.faults import MAX_ROW, Fault
from siftune.curation.ingest import json_reader
from siftune.curation.ingest.file_rows import read_rows
from siftune.curation.ingest.lines import LongLine, split_lines

LIMIT = 2_000
ROW = b'{"instruction": "q", "output": "a"}\n'
LONG = b'{"instruction": "q", "output": "' + b"abcdefg " * 500 + b'"}\n'


def read(folder: Path, name: str, content: bytes) -> list[Any]:
    """`oversized_row` for each row of that reason, the row itself for every other."""
    path = folder / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    rows = read_rows(path, warn=lambda _: None, max_row=LIMIT)
    return [row.reason if isinstance(row, Fault) else row for row in rows]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json"])
@pytest.mark.parametrize("long", [LONG, LONG[:-3] + b"\n", LONG[10:]], ids=["whole", "broken", "not an object"])
def test_a_long_line_is_one_row(tmp_path: Path, name: str, long: bytes) -> None:
    row = {"instruction": "q", "output": "a"}
    assert read(tmp_path, name, ROW * 2 + long + ROW + long * 2 + ROW) == [
        *([row] * 2),
        "oversized_row",
        row,
        *(["oversized_row"] * 2),
        row,
    ]
    assert read(tmp_path, name, ROW + long[:-4]) == [row, "oversized_row"]  # the file is cut in it


def test_a_long_line_comes_first(tmp_path: Path) -> None:
    assert read(tmp_path, "a.jsonl", LONG + ROW)[0] == "oversized_row"
    assert read(tmp_path, "a.jsonl", LONG) == ["oversized_row"]
    assert len(read(tmp_path, "a.jsonl", b"[" + b",".join([ROW.strip()] * 200) + b"]")) == 200  # no row, but an array


def test_lines_of_an_object_that_does_not_end_are_told_before_a_long_line(tmp_path: Path) -> None:
    reasons = read(tmp_path, "a.jsonl", ROW + b'{"instruction": [\n1,\n' + LONG + ROW)
    assert reasons[1:-1] == ["bad_json", "bad_json", "oversized_row"]


def test_the_message_says_what_was_found_and_what_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(ROW + LONG)
    *_, fault = read_rows(tmp_path / "a.jsonl", warn=print, max_row=LIMIT)
    assert fault.detail == f"a line of {len(LONG) - 1:,} bytes; a row has fewer than {LIMIT:,}"
    assert LONG.startswith(fault.raw.encode())


def test_a_long_record_of_csv(tmp_path: Path) -> None:
    row = {"instruction": "q", "output": "a"}
    long = b"q," + b"x" * 5_000 + b"\n"
    assert read(tmp_path, "a.csv", b"instruction,output\nq,a\n" + long + b"q,a\n" + long[:-1]) == [
        row,
        "oversized_row",
        row,
        "oversized_row",
    ]
    # Fields over several lines that are short each: the record ends where it is too long.
    many = b",".join([b'"' + b"line\n" * 20 + b'"'] * 30) + b"\n"
    assert read(tmp_path, "a.csv", b"instruction,output\nq,a\n" + many + b"q,a\n")[1] == "oversized_row"


def test_a_header_of_csv_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"its first line cannot be read as a CSV header: a line of 5,000 bytes"):
        read(tmp_path, "a.csv", b"x" * 5_000 + b"\nq,a\n")


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_the_length_of_pieces_changes_no_line(size: int) -> None:
    content = b"\n".join([b"", b"a" * 9, b"b" * 10, b"c" * 11, b"", b"d" * 50, b"e", b"f" * 30])
    pieces = iter([content[start : start + size] for start in range(0, len(content), size)])
    lines = [line.size if isinstance(line, LongLine) else line for line in split_lines(pieces, limit=11)]
    assert lines == [b"\n", b"a" * 9 + b"\n", b"b" * 10 + b"\n", 11, b"\n", 50, b"e\n", 30]


def test_a_line_of_ordinary_size_is_read_up_to_the_limit(tmp_path: Path) -> None:
    assert MAX_ROW > 2 * 5_000_000  # an answer of five million characters of two bytes
    (tmp_path / "a.jsonl").write_bytes(ROW + b'{"instruction": "q", "output": "' + b"a" * 5_000_000 + b'"}\n')
    assert [len(row["output"]) for row in read_rows(tmp_path / "a.jsonl", warn=print)] == [1, 5_000_000]


@pytest.mark.parametrize("content", [b'[{"a": "' + b"x" * 900_000 + b'"}]', b"[\n" + ROW.strip() + b",\n" * 600_000])
def test_a_value_that_is_too_large_to_be_read_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    (tmp_path / "a.json").write_bytes(content)
    monkeypatch.setattr(json_reader, "MAX_DOCUMENT", 600_000)
    with pytest.raises(UserError, match="is one JSON value of more than 600,000 bytes") as fault:
        list(read_rows(tmp_path / "a.json", warn=print))
    assert "JSON Lines" in str(fault.value)


def test_lines_of_an_object_that_does_not_end_are_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """30 KB of such lines took 7 seconds, 300 KB ten minutes."""
    calls: list[int] = []
    objects_of = json_reader._objects_of
    monkeypatch.setattr(json_reader, "_objects_of", lambda data: calls.append(len(data)) or objects_of(data))
    (tmp_path / "a.jsonl").write_bytes(ROW * 2 + b'{"a": [\n' + b"1,\n" * 2_000 + b"]\n" + b"}\n" * 2_000)
    rows = list(read_rows(tmp_path / "a.jsonl", warn=print))
    assert len(rows) > 2
    assert all(isinstance(row, Fault) for row in rows[2:])
    assert sum(size > 5_000 for size in calls) <= 2
