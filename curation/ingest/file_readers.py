"""Rows as they stand in files, one reader for each kind of file. A row that cannot be parsed is a `Fault` in its place.

A row is what stands for one: an object of JSON, a non-blank line of JSONL, a record of CSV, a row of Parquet or Arrow.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from siftune.curation.errors import UserError
from siftune.curation.formats.conversation import MAX_CELL, Fault, Row
from siftune.curation.ingest import json_recovery
from siftune.curation.ingest.source_files import Kind, Note, chunks, compression, kind_of

Done = Callable[[int], None]
_BATCH = 4096
_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_CHOICES = ("A", "B", "C", "D")


def rows(path: Path, *, note: Note, positions: bool = False, done: Done | None = None) -> Iterator[Any]:
    """The rows of a file in order: objects, a `Fault` for what cannot be parsed, any other JSON value as it is.

    Args:
        path: The file; its ending says how it is read.
        note: Is told what the user should know of the file.
        positions: Columns are called by their position ("0", "1" …): CSV without a header, JSON lists as rows.
        done: Is told how many bytes were read with each piece.

    Raises:
        UserError: the file as a whole cannot be read.
    """
    kind = kind_of(path)
    if kind in ("parquet", "arrow"):
        return _tables(path, kind, note, done)
    pieces = _without_bom(chunks(path, note=note, done=done), path)
    if kind in ("csv", "tsv"):
        return _records(_Lines(pieces), path, "\t" if kind == "tsv" else None, positions=positions, note=note)
    begun = next(pieces, b"")
    pieces = chain([begun], pieces)
    lined = kind == "jsonl" and not json_recovery.is_array(begun)
    found = json_recovery.lines(pieces, note=note) if lined else json_recovery.document(pieces, path, note=note)
    return map(_by_position, found) if positions else found


def table_rows(batch: pa.RecordBatch | pa.Table) -> Iterator[Any]:
    """The rows of an Arrow batch; a row whose text is not UTF-8 is a `Fault`."""
    for start in range(0, batch.num_rows, _BATCH):
        part = batch.slice(start, _BATCH)
        try:
            yield from part.to_pylist()
        except UnicodeDecodeError:
            yield from (_table_row(part.slice(place, 1)) for place in range(part.num_rows))


def _table_row(one: pa.RecordBatch | pa.Table) -> Row | Fault:
    try:
        return one.to_pylist()[0]
    except UnicodeDecodeError as fault:
        return Fault("bad_encoding", str(fault.reason), repr(fault.object[:1000]))


def _by_position(row: Any) -> Any:
    return {str(place): cell for place, cell in enumerate(row)} if isinstance(row, list) else row


def _without_bom(pieces: Iterator[bytes], path: Path) -> Iterator[bytes]:
    first = True
    for piece in pieces:
        if first and piece:
            first = False
            if piece.startswith(_UTF16):
                raise UserError(f"{path} is UTF-16; rows are read as UTF-8. Convert it: iconv -f UTF-16 -t UTF-8")
            yield piece.removeprefix(_BOM)
        else:
            yield piece


class _Lines:
    """Lines of text for the csv module, remembering those of the record at hand and how they were read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.record: list[str] = []
        self.broken = False  # a line of the record is not UTF-8
        self.ended = False  # the file ended while the record was read
        self._lines = self._split(pieces)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines, None)
        if line is None:
            self.ended = True
            raise StopIteration
        try:
            text = line.decode()
        except UnicodeDecodeError:
            text, self.broken = line.decode(errors="replace"), True
        self.record.append(text)
        return text

    def begin(self) -> None:
        """Forget the record before."""
        self.record, self.broken = [], False

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


def _records(lines: _Lines, path: Path, delimiter: str | None, *, positions: bool, note: Note) -> Iterator[Any]:
    csv.field_size_limit(MAX_CELL)
    first = next(lines, None)
    if first is None:
        return
    separator = delimiter or max(",;\t", key=first.count)
    reader = csv.reader(chain([first], lines), delimiter=separator)
    try:
        header = next(reader)
    except csv.Error as fault:
        raise UserError(f"{path}: its first line is not a CSV header: {fault}") from None
    if lines.broken:
        raise UserError(f"{path}: its first line is not UTF-8. Convert it, for example: iconv -f LATIN1 -t UTF-8")
    choices = not positions and len(header) == 6 and header[5].strip() in _CHOICES
    if positions or choices:
        reader = csv.reader(chain(lines.record, lines), delimiter=separator)
        lines.record = []
        header = [str(place) for place in range(len(header))]
    if choices:
        note("it has no header; read as MMLU rows (a question, four choices, a letter)")
    names = _distinct(header)
    found = _parsed(reader, lines, names, note)
    yield from (map(_with_choices, found) if choices else found)


def _parsed(reader: Iterator[list[str]], lines: _Lines, names: list[str], note: Note) -> Iterator[Any]:
    while True:
        lines.begin()
        try:
            record = next(reader, None)
        except csv.Error as fault:
            large = "field limit" in str(fault)
            yield Fault("oversized_cell" if large else "ragged_row", str(fault), "".join(lines.record)[:2000])
            continue
        if record is None:
            return
        if record:
            yield _checked(record, lines, names, note)


def _checked(record: list[str], lines: _Lines, names: list[str], note: Note) -> Row | Fault:
    unfinished = bool(lines.record) and not lines.record[-1].endswith("\n")
    if lines.broken:
        return Fault("bad_encoding", "not UTF-8", "".join(lines.record)[:2000])
    if lines.ended:
        note(json_recovery.CUT)
        detail = f"a quote opens and never closes; {len(lines.record)} lines follow it"
        return Fault("truncated", detail, "".join(lines.record)[:2000])
    if len(record) != len(names):
        detail = f"{len(record)} fields where the header has {len(names)}"
        if unfinished and len(record) < len(names):
            note(json_recovery.CUT)
            return Fault("truncated", detail, "".join(lines.record)[:2000])
        return Fault("ragged_row", detail, "".join(lines.record)[:2000])
    return dict(zip(names, record, strict=True))


def _with_choices(row: Any) -> Any:
    if isinstance(row, Fault):
        return row
    question, *choices, answer = row.values()
    return {"question": question, "choices": choices, "answer": answer}


def _distinct(header: list[str]) -> list[str]:
    names: list[str] = []
    for name in header:
        copies = sum(1 for other in header[: len(names)] if other == name)
        names.append(f"{name}.{copies}" if copies else name)
    return names


def _tables(path: Path, kind: Kind, note: Note, done: Done | None) -> Iterator[Any]:
    with tempfile.TemporaryFile() as unpacked, path.open("rb") as packed:
        file: IO[bytes] = packed
        if compression(path) is not None:
            for piece in chunks(path, note=note):
                unpacked.write(piece)
            unpacked.seek(0)
            file = unpacked
        for batch in _parquet(file, path, done) if kind == "parquet" else _arrow(file, path, note, done):
            yield from table_rows(batch)


def _parquet(file: IO[bytes], path: Path, done: Done | None) -> Iterator[pa.RecordBatch]:
    try:
        table = pq.ParquetFile(file)
        for batch in table.iter_batches(batch_size=_BATCH):
            yield batch
            if done is not None:
                done(path.stat().st_size * batch.num_rows // table.metadata.num_rows)
    except (pa.ArrowInvalid, OSError) as fault:
        raise UserError(
            f"{path} cannot be read as Parquet: {_one_line(fault)} "
            "Its index stands at the end: of a file that was cut, nothing can be read. Fetch it again."
        ) from None


def _arrow(file: IO[bytes], path: Path, note: Note, done: Done | None) -> Iterator[pa.RecordBatch]:
    """Batches of an IPC stream, or of an IPC file: a magic word and padding before a stream, an index after it."""
    magic = file.read(8)
    if not magic.startswith(b"ARROW1"):
        file.seek(0)
    try:
        stream = pa.ipc.open_stream(file)
    except (pa.ArrowInvalid, OSError) as fault:
        raise UserError(f"{path} cannot be read as Arrow: {_one_line(fault)}") from None
    while True:
        try:
            batch = stream.read_next_batch()
        except StopIteration:
            return
        except (pa.ArrowInvalid, OSError):
            note("the file is cut in the middle: the last batch of rows was lost")
            return
        yield batch
        if done is not None:
            done(batch.nbytes)


def _one_line(fault: Exception) -> str:
    return " ".join(str(fault).split())
