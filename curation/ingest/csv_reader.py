"""Records of CSV and TSV files. A record that cannot be used is a `Fault` at its position."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from siftune.curation.errors import UserError
from siftune.curation.formats.cells import Row
from siftune.curation.formats.faults import MAX_CELL, Fault
from siftune.curation.ingest.decompression import Warn
from siftune.curation.ingest.json_reader import TRUNCATED

_MMLU_LETTERS = ("A", "B", "C", "D")
_RAW_CHARACTERS = 2000  # of a faulty record that are kept


class _Lines:
    """Lines of text for the csv module; remembers the lines of the current record and how they were read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.record: list[str] = []
        self.undecodable = False  # a line of the record is not UTF-8
        self.exhausted = False  # the file ended while the record was read
        self._lines = self._split(pieces)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines, None)
        if line is None:
            self.exhausted = True
            raise StopIteration
        try:
            text = line.decode()
        except UnicodeDecodeError:
            text, self.undecodable = line.decode(errors="replace"), True
        self.record.append(text)
        return text

    def begin_record(self) -> None:
        """Forget the lines of the record before."""
        self.record, self.undecodable = [], False

    @property
    def raw(self) -> str:
        """The first characters of the current record as it stands in the file."""
        return "".join(self.record)[:_RAW_CHARACTERS]

    @staticmethod
    def _split(pieces: Iterator[bytes]) -> Iterator[bytes]:
        tail: list[bytes] = []
        for piece in pieces:
            first, *others = piece.split(b"\n")
            tail.append(first)
            if others:
                yield b"".join([*tail, b"\n"])
                yield from (line + b"\n" for line in others[:-1])
                tail = [others[-1]]
        if any(tail):
            yield b"".join(tail)


def read_records(
    pieces: Iterator[bytes], path: Path, *, delimiter: str | None, positions: bool, warn: Warn
) -> Iterator[Any]:
    """The records of a file as objects, in order.

    Args:
        pieces: The content of the file.
        path: The file, for messages.
        delimiter: Between fields; None for the most frequent of comma, semicolon and tab in the first line.
        positions: There is no header; columns are named by their position ("0", "1" …).
        warn: Is called with what the user should know of the file.

    Raises:
        UserError: the first line is no header, or not UTF-8.
    """
    csv.field_size_limit(MAX_CELL)
    lines = _Lines(pieces)
    first = next(lines, None)
    if first is None:
        return
    separator = delimiter or max(",;\t", key=first.count)
    reader = csv.reader(chain([first], lines), delimiter=separator)
    try:
        header = next(reader)
    except csv.Error as error:
        raise UserError(f"{path}: its first line cannot be read as a CSV header: {error}. Correct that line.") from None
    if lines.undecodable:
        raise UserError(f"{path}: its first line is not UTF-8. Convert it, for example: iconv -f LATIN1 -t UTF-8")
    # The files of MMLU have no header: a question, four choices, and the letter of the right one.
    is_mmlu = not positions and len(header) == 6 and header[5].strip() in _MMLU_LETTERS
    if positions or is_mmlu:
        reader = csv.reader(chain(lines.record, lines), delimiter=separator)
        lines.record = []
        header = [str(position) for position in range(len(header))]
    if is_mmlu:
        warn("the file has no header; its rows are read as MMLU items (a question, four choices, a letter)")
    records = _parsed_records(reader, lines, _distinct_names(header), warn)
    yield from map(_mmlu_row, records) if is_mmlu else records


def _parsed_records(reader: Iterator[list[str]], lines: _Lines, names: list[str], warn: Warn) -> Iterator[Any]:
    while True:
        lines.begin_record()
        try:
            fields = next(reader, None)
        except csv.Error as error:
            oversized = "field limit" in str(error)
            yield Fault("oversized_cell" if oversized else "ragged_row", str(error), lines.raw)
            continue
        if fields is None:
            return
        if fields:
            yield _record(fields, lines, names, warn)


def _record(fields: list[str], lines: _Lines, names: list[str], warn: Warn) -> Row | Fault:
    if lines.undecodable:
        return Fault("bad_encoding", "not UTF-8", lines.raw)
    if lines.exhausted:
        warn(TRUNCATED)
        detail = f"a quote opens and never closes; {len(lines.record)} lines follow it"
        return Fault("truncated", detail, lines.raw)
    if len(fields) != len(names):
        detail = f"{len(fields)} fields where the header has {len(names)}"
        is_unfinished = bool(lines.record) and not lines.record[-1].endswith("\n")
        if is_unfinished and len(fields) < len(names):
            warn(TRUNCATED)
            return Fault("truncated", detail, lines.raw)
        return Fault("ragged_row", detail, lines.raw)
    return dict(zip(names, fields, strict=True))


def _mmlu_row(row: Any) -> Any:
    if isinstance(row, Fault):
        return row
    question, *choices, answer = row.values()
    return {"question": question, "choices": choices, "answer": answer}


def _distinct_names(header: list[str]) -> list[str]:
    """The second column `x` is called `x.1`."""
    names: list[str] = []
    for name in header:
        copies = sum(1 for other in header[: len(names)] if other == name)
        names.append(f"{name}.{copies}" if copies else name)
    return names
