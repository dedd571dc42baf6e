"""Records of CSV and TSV files. A record that cannot be used is a `Fault` at its position.

The content decides the separator, the lines above the header, the line ends, and whether quotes quote at all: files
with tabs or bars are often written without quoting, and then a quote is a part of the text.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

from siftune.curation.errors import UserError
from siftune.curation.formats.cells import Row
from siftune.curation.formats.faults import MAX_CELL, MAX_ROW, Fault
from siftune.curation.ingest.decompression import Warn
from siftune.curation.ingest.json_layouts import columns_fit, is_usual_name
from siftune.curation.ingest.json_reader import TRUNCATED
from siftune.curation.ingest.lines import LongLine, split_lines

_MMLU_LETTERS = ("A", "B", "C", "D")
_RAW_CHARACTERS = 2000  # of a faulty record that are kept
_SEPARATORS = ",;\t|"
_SAMPLE_BYTES = 1 << 18  # of the beginning that are looked at
_MOST_TITLE_LINES = 5
_SEPARATOR_LINE = re.compile(r'\A"?sep=(.)"?\s*\Z', re.IGNORECASE)
_RULE = re.compile(r":?-{2,}:?|")  # a cell of the line below the header of a table in Markdown
_BACKSLASHED = re.compile(r'\\(["\\])')


@dataclass(frozen=True)
class _Dialect:
    r"""How records are written.

    Attributes:
        separator: Between fields.
        quotes: `doubled`, a quote within quotes is written twice; `backslash`, as \"; `none`, quotes are text.
        doubled_backslash: Whether a backslash is written as two, for `backslash`.
        skips_blanks: Whether blanks after a separator are no text.
        strips: Whether blanks on both sides of a field are no text.
    """

    separator: str
    quotes: Literal["doubled", "backslash", "none"] = "doubled"
    doubled_backslash: bool = False
    skips_blanks: bool = False
    strips: bool = False

    def reader(self, lines: Iterator[str]) -> Iterator[list[str]]:
        """Fields of the records in `lines`; `csv.Error` for one that is not valid."""
        if self.quotes == "backslash":
            lines = map(self._with_doubled_quotes, lines)
        quoting: Any = csv.QUOTE_NONE if self.quotes == "none" else csv.QUOTE_MINIMAL
        records = csv.reader(
            lines, delimiter=self.separator, quoting=quoting, strict=True, skipinitialspace=self.skips_blanks
        )
        return _Stripped(records) if self.strips else records

    def literal_fields(self, line: str) -> list[str]:
        """The fields of a line whose quotes are text."""
        return line.rstrip("\r\n").split(self.separator)

    def _with_doubled_quotes(self, line: str) -> str:
        if "\\" not in line:
            return line
        unescaped = "\\" if self.doubled_backslash else "\\\\"
        return _BACKSLASHED.sub(lambda match: '""' if match[1] == '"' else unescaped, line)


class _Stripped:
    """Records whose fields have no blanks at their ends; it goes on after a `csv.Error`, which a generator cannot."""

    def __init__(self, records: Iterator[list[str]]) -> None:
        self._records = records

    def __iter__(self) -> Iterator[list[str]]:
        return self

    def __next__(self) -> list[str]:
        return [field.strip() for field in next(self._records)]


class _LongRecord(csv.Error):
    """A record is too long for a row."""


class _Lines:
    """Lines of text for the csv module; remembers the lines of the current record and how they were read."""

    def __init__(self, pieces: Iterator[bytes], *, line_end: bytes, max_row: int) -> None:
        self.record: list[str] = []
        self.undecodable = False  # a line of the record is not UTF-8
        self.exhausted = False  # the file ended while the record was read
        self._lines = split_lines(pieces, line_end=line_end, limit=max_row)
        self._size = 0  # of the record
        self._max_row = max_row

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines, None)
        if line is None:
            self.exhausted = True
            raise StopIteration
        if isinstance(line, LongLine):
            fault = line.fault()
            self.record.append(fault.raw)
            raise _LongRecord(fault.detail)
        self._size += len(line)
        if self._size > self._max_row:
            raise _LongRecord(f"a record of {len(self.record):,} lines that has {self._max_row:,} bytes and goes on")
        try:
            text = line.decode()
        except UnicodeDecodeError:
            text, self.undecodable = line.decode(errors="replace"), True
        self.record.append(text)
        return text

    def begin_record(self) -> None:
        """Forget the lines of the record before."""
        self.record, self.undecodable, self._size = [], False, 0

    @property
    def raw(self) -> str:
        """The first characters of the current record as it stands in the file."""
        return "".join(self.record)[:_RAW_CHARACTERS]


def read_records(
    pieces: Iterator[bytes],
    path: Path,
    *,
    delimiter: str | None,
    positions: bool,
    warn: Warn,
    max_row: int = MAX_ROW,
) -> Iterator[Any]:
    """The records of a file as objects, in order.

    Args:
        pieces: The content of the file.
        path: The file, for messages.
        delimiter: The separator that its name promises; None for the one of comma, semicolon, tab and bar that the
            header shows. A line `sep=;` above the header takes precedence.
        positions: There is no header; columns are named by their position ("0", "1" …).
        warn: Is called with what the user should know of the file.
        max_row: Bytes from which on a line is no row.

    Raises:
        UserError: the first line is no header, or not UTF-8.
    """
    csv.field_size_limit(MAX_CELL)
    beginning = _beginning(pieces)
    line_end = b"\r" if b"\r" in beginning and b"\n" not in beginning else b"\n"
    lines = _Lines(chain([beginning], pieces), line_end=line_end, max_row=max_row)
    sample = _sample_lines(beginning, line_end)
    if not any(line.strip() for line in sample):
        return
    # 1. Where the header is, and what separates its names.
    title, separator = _title_and_separator(sample, delimiter, positions=positions)
    for _ in range(title):
        next(lines)
    texts = [line.strip() for line in sample[:title] if line.strip() and not _SEPARATOR_LINE.match(line)]
    if texts:
        warn(f"lines above the header were left out: {'; '.join(texts)[:200]}")
    if lines.undecodable:
        raise UserError(f"{path}: its first lines are not UTF-8. Convert it, for example: iconv -f LATIN1 -t UTF-8")
    dialect = _dialect(sample[title:], separator)
    # 2. The header.
    lines.begin_record()
    reader = dialect.reader(lines)
    try:
        header = next(reader)
    except csv.Error as error:
        raise UserError(f"{path}: its first line cannot be read as a CSV header: {error}. Correct that line.") from None
    if lines.undecodable:
        raise UserError(f"{path}: its first line is not UTF-8. Convert it, for example: iconv -f LATIN1 -t UTF-8")
    # The files of MMLU have no header: a question, four choices, and the letter of the right one.
    is_mmlu = not positions and len(header) == 6 and header[5].strip() in _MMLU_LETTERS
    first_lines: list[str] = []
    if positions or is_mmlu:
        first_lines = lines.record
        header = [str(position) for position in range(len(header))]
    if is_mmlu:
        warn("the file has no header; its rows are read as MMLU items (a question, four choices, a letter)")
    # 3. The records.
    records = _Records(lines, dialect, _distinct_names(header), warn).read(first_lines)
    if dialect.strips and not (positions or is_mmlu):
        records = _without_rule(records)
    yield from map(_mmlu_row, records) if is_mmlu else records


def _without_rule(records: Iterator[Any]) -> Iterator[Any]:
    """The records without the dashes that follow the header of a table in Markdown."""
    for first in islice(records, 1):
        if not isinstance(first, dict) or not all(_RULE.fullmatch(cell) for cell in first.values()):
            yield first
    yield from records


def _beginning(pieces: Iterator[bytes]) -> bytes:
    head, size = [], 0
    for piece in pieces:
        head.append(piece)
        size += len(piece)
        if size >= _SAMPLE_BYTES:
            break
    return b"".join(head)


def _sample_lines(beginning: bytes, line_end: bytes) -> list[str]:
    """The lines of the beginning, without the last one where the beginning was cut."""
    parts = beginning.split(line_end)
    lines = [(line + line_end).decode(errors="replace") for line in parts[:-1]]
    lines += [parts[-1].decode(errors="replace")] if parts[-1] else []
    return lines[:-1] if len(beginning) >= _SAMPLE_BYTES and len(lines) > 1 else lines


def _title_and_separator(sample: Sequence[str], delimiter: str | None, *, positions: bool) -> tuple[int, str]:
    """How many lines are above the header, and the separator."""
    named = _SEPARATOR_LINE.match(sample[0])
    separators = named[1] if named else (delimiter or "") + _SEPARATORS.replace(delimiter or " ", "")
    above = [index for index, line in enumerate(sample[: _MOST_TITLE_LINES + 1]) if line.strip()]
    above = above[1:] if named else above
    if not above:
        return 1, separators[0]
    first = above[0]
    # The first line whose names fit a format is the header.
    if not positions:
        for index in above:
            for separator in separators:
                names = _names(sample[index], separator)
                if len(names) > 1 and columns_fit([name for name in names if len(name) > 1 or index == first]):
                    return index, separator
    # Else the first line, unless it holds one text and the two lines below it hold as many fields as each other.
    if named or (delimiter and delimiter in sample[first]):
        return first, separators[0]
    separator = max(separators, key=sample[first].count)
    if separator not in sample[first]:  # one column: the separator shows where fields are in quotes because of it
        separator = min(separators, key=lambda other: _faulty_records(sample[first:], _Dialect(other)))
    if len(above) > 2 and not positions and not is_usual_name(sample[first]):
        widths = [[len(_names(sample[index], other)) for index in above[:3]] for other in separators]
        for (top, header, record), other in zip(widths, separators, strict=True):
            if top == 1 and header == record > 1:
                return above[1], other
    return first, separator


def _names(line: str, separator: str) -> list[str]:
    """The fields of a line that are not blank: a title is often padded with empty fields."""
    try:
        fields = next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    except csv.Error:
        fields = line.split(separator)
    return [field.strip() for field in fields if field.strip()]


def _dialect(sample: Sequence[str], separator: str) -> _Dialect:
    """The way of quoting under which the fewest records of the sample are faulty; the usual one when they are equal."""
    names = sample[0].rstrip().split(separator) if sample and separator != "\t" else []
    # `question | answer`, also with a bar at both ends, as tables in Markdown have it; `question, answer`.
    strips = len(names) > 1 and all(name[-1].isspace() for name in names[:-1] if name)
    skips_blanks = len(names) > 1 and all(name[0].isspace() for name in names[1:] if name)
    text = "".join(sample)
    candidates = [_Dialect(separator, skips_blanks=skips_blanks, strips=strips)]
    if not skips_blanks and re.search(rf'{re.escape(separator)} +"', text):
        candidates.append(_Dialect(separator, skips_blanks=True, strips=strips))
    if '\\"' in text:
        runs = [len(run) for run in re.findall(r'\\+(?!\\|")', text)]
        doubled = all(length % 2 == 0 for length in runs)
        candidates.append(_Dialect(separator, "backslash", doubled, skips_blanks, strips))
    if '"' in text and separator in "\t|":
        candidates.append(_Dialect(separator, "none", strips=strips))
    return (
        min(candidates, key=lambda dialect: _faulty_records(sample, dialect)) if len(candidates) > 1 else candidates[0]
    )


def _faulty_records(sample: Sequence[str], dialect: _Dialect) -> int:
    """Records that are not valid, have another number of fields than the first, or seem to hold other records."""
    lines = iter(sample)
    taken: list[str] = []

    def remembered() -> Iterator[str]:
        for line in lines:
            taken.append(line)
            yield line

    reader, faulty, width = dialect.reader(remembered()), 0, 0
    while True:
        taken.clear()
        try:
            fields = next(reader, None)
        except csv.Error:
            faulty += len(taken)
            if not taken:
                return faulty
            continue
        if fields is None:
            return faulty
        width = width or len(fields)
        faulty += bool(fields) and len(fields) != width
        faulty += len(taken) if _joins_records(taken, dialect, width) else 0


def _holds_records(record: Sequence[str], dialect: _Dialect, width: int) -> bool:
    """Whether a record spans lines and each of them holds the separator as often as the header."""
    return len(record) > 1 < width and all(line.count(dialect.separator) >= width - 1 for line in record)


def _joins_records(record: Sequence[str], dialect: _Dialect, width: int) -> bool:
    """Whether a valid record of tabs or bars is three rows or more whose quotes are text.

    Two lines may well be a text with a tab in quotes; three that all have exactly as many fields as the header, none of
    them blank, are not.
    """
    if len(record) < 3 or dialect.separator not in "\t|" or dialect.quotes == "none":
        return False
    lines = [dialect.literal_fields(line) for line in record]
    return all(len(fields) == width and all(field.strip() for field in fields) for fields in lines)


class _Records:
    """The records below the header; counts what should be reported of them."""

    def __init__(self, lines: _Lines, dialect: _Dialect, names: list[str], warn: Warn) -> None:
        self._lines = lines
        self._dialect = dialect
        self._names = names
        self._warn = warn
        self._counts: Counter[str] = Counter()

    def read(self, first_lines: Sequence[str]) -> Iterator[Row | Fault]:
        """The records, `first_lines` first."""
        reader = self._dialect.reader(chain(first_lines, self._lines))
        self._lines.begin_record()
        self._lines.record = list(first_lines)
        width = len(self._names)
        while True:
            try:
                fields = next(reader, None)
            except _LongRecord as error:
                yield Fault("oversized_row", str(error), self._lines.raw)
            except csv.Error as error:
                yield from self._not_valid(str(error))
            else:
                if fields is None:
                    break
                record = self._lines.record
                if _joins_records(record, self._dialect, width):
                    yield from self._literal(record)
                    fields = []
                elif _holds_records(record, self._dialect, width):
                    self._counts["spans"] += 1
                if fields:
                    yield self._record(fields)
            self._lines.begin_record()
        self._report()

    def _record(self, fields: list[str]) -> Row | Fault:
        lines, names = self._lines, self._names
        if lines.undecodable:
            return Fault("bad_encoding", "not UTF-8", lines.raw)
        if len(fields) == len(names):
            return dict(zip(names, fields, strict=True))
        detail = f"{len(fields)} fields where the header has {len(names)}"
        is_unfinished = bool(lines.record) and lines.record[-1][-1:] not in ("\n", "\r")
        if is_unfinished and len(fields) < len(names):
            self._warn(TRUNCATED)
            return Fault("truncated", detail, lines.raw)
        return Fault("ragged_row", detail, lines.raw)

    def _not_valid(self, message: str) -> Iterator[Row | Fault]:
        """What becomes of a record that the csv module refuses."""
        lines = self._lines
        if lines.undecodable:
            yield Fault("bad_encoding", "not UTF-8", lines.raw)
        elif "field limit" in message:
            yield Fault("oversized_cell", message, lines.raw)
        elif self._are_literal(lines.record):
            yield from self._literal(lines.record)
        elif lines.exhausted:
            self._warn(TRUNCATED)
            yield Fault("truncated", f"a quote opens and never closes; {len(lines.record)} lines follow it", lines.raw)
        else:
            over = f" (over {len(lines.record)} lines)" if len(lines.record) > 1 else ""
            yield Fault("ragged_row", f"text after a closing quote{over}: {message}", lines.raw)

    def _are_literal(self, record: Sequence[str]) -> bool:
        """Whether every line is a record when its quotes are text."""
        return bool(record) and all(len(self._dialect.literal_fields(line)) == len(self._names) for line in record)

    def _literal(self, record: Sequence[str]) -> Iterator[Row]:
        self._counts["literal"] += len(record)
        for line in record:
            yield dict(zip(self._names, self._dialect.literal_fields(line), strict=True))

    def _report(self) -> None:
        if self._dialect.quotes == "none":
            self._warn("quotes do not quote in this file; they were read as text")
        elif literal := self._counts["literal"]:
            self._warn(f"quotes of {literal:,} lines do not quote; they were read as text, each line as a record")
        if spans := self._counts["spans"]:
            self._warn(
                f"{spans:,} records span lines that each hold the separator as often as the header: look whether a "
                "quote that opens and does not close joined rows"
            )


def _mmlu_row(row: Any) -> Any:
    if isinstance(row, Fault):
        return row
    question, *choices, answer = row.values()
    return {"question": question, "choices": choices, "answer": answer}


def _distinct_names(header: list[str]) -> list[str]:
    """The second column `x` is called `x.1`."""
    names: list[str] = []
    for name in map(str.strip, header):
        copies = sum(1 for other in header[: len(names)] if other.strip() == name)
        names.append(f"{name}.{copies}" if copies else name)
    return names
