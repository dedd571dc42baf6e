"""Sources in, EXAMPLES out: every input row becomes an example, or is quarantined with its reason.

Rows keep their order: sources as the recipe lists them, files by name, rows as they are in the file. The id of a row is
its source's name and its position among *all* rows of the source, quarantined ones included, so that
rows read = examples + quarantined, per source and in total.

The split of a row is the one that the recipe gives to the source; else its own column `split`; else the split that a
folder, a hub data set or the name of one of several files gives it. Usual names are replaced by the standard one
(`val`, `dev` and `valid` by `validation`; see `split_names`).

`meta` is a JSON object of all columns that are not in the messages, keys sorted. Two keys may be added: `_turns`, what
messages had besides role and content, by the position of the turn; `_repairs`, what was repaired in the dialogue.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from siftune.curation.errors import UserError, did_you_mean
from siftune.curation.file_hash import file_sha256
from siftune.curation.formats.cells import Row
from siftune.curation.formats.detection import are_positions
from siftune.curation.formats.faults import Fault
from siftune.curation.ingest.curated_sets import CuratedNotes, published_row
from siftune.curation.ingest.example_writer import ExampleWriter
from siftune.curation.ingest.row_conversion import Example, RowConverter, as_object
from siftune.curation.ingest.row_format import RowFormat
from siftune.curation.ingest.source_location import SourceLocation, locate
from siftune.curation.ingest.source_parts import SourcePart, hashed_files, source_parts
from siftune.curation.progress import Progress
from siftune.curation.recipe.sections import Source
from siftune.curation.run.manifest import FileRecord, SourceRecord
from siftune.curation.text.hidden_characters import visible

#: Part of every fingerprint: raise it when the same files begin to give other examples.
RULES = 4
_PART_NAME_CHARACTERS = 100  # of the name of a mixture's part that are kept
_SAMPLE_ROWS = 100  # with columns, that are looked at to detect the format


@dataclass(frozen=True)
class IngestReport:
    """What was read, source by source."""

    sources: tuple[SourceRecord, ...]

    @property
    def rows(self) -> int:
        """Input rows of all sources."""
        return sum(source.rows for source in self.sources)

    @property
    def examples(self) -> int:
        """Rows that became examples."""
        return sum(source.examples for source in self.sources)


class IngestedRow(NamedTuple):
    """An input row and what became of it.

    Attributes:
        position: Its position in the source, from 0.
        source: The name that it counts under: the source's own, or that of its part of a mixture.
        file: The name of its file.
        file_row: Its position in the file, from 0.
        value: The row as it was parsed.
        row_format: How it was converted; None when no row of the file has columns.
        result: The example, or why the row is none.
    """

    position: int
    source: str
    file: str
    file_row: int
    value: Any
    row_format: RowFormat | None
    result: Example | Fault


@dataclass
class SourceCounts:
    """What is counted and noted while a source is read; `report` makes the `SourceRecord`."""

    name: str
    path: str
    formats: Counter[str] = field(default_factory=Counter)
    columns: dict[str, None] = field(default_factory=dict)
    files: list[FileRecord] = field(default_factory=list)
    rows: int = 0
    examples: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)

    def count(self, result: Example | Fault) -> None:
        """Count one row."""
        self.rows += 1
        if isinstance(result, Fault):
            self.quarantined[result.reason] += 1
        else:
            self.examples += 1

    def note_skipped(self, location: SourceLocation) -> None:
        """Note the files of a folder that hold no rows."""
        if location.skipped:
            names = ", ".join(file.name for file in location.skipped[:5])
            more = f" and {len(location.skipped) - 5} more" if len(location.skipped) > 5 else ""
            self.warnings.append(f"files that are not data were left out: {names}{more}")

    def report(self) -> SourceRecord:
        """The report on the source, once all its rows are read."""
        if self.rows and not self.examples:
            self.warnings.append("none of its rows could be used")
        elif not self.rows:
            self.warnings.append("it holds no rows")
        return SourceRecord(
            name=self.name,
            path=self.path,
            format=", ".join(self.formats) or "none",
            columns=list(self.columns),
            files=self.files,
            rows=self.rows,
            examples=self.examples,
            quarantined=dict(sorted(self.quarantined.items())),
            warnings=list(dict.fromkeys(self.warnings)),
        )


def read_sources(
    sources: Sequence[Source],
    *,
    base: Path,
    out: Path,
    quarantine: Path,
    on_row: Callable[[IngestedRow], None] | None = None,
    progress: Progress | None = None,
) -> IngestReport:
    """Read all sources into one parquet file of EXAMPLES. Both files are written in one step at the end.

    Args:
        sources: As in the recipe, in order.
        base: The folder that their paths are relative to.
        out: The parquet file.
        quarantine: The JSON Lines file of rows that cannot be used. A line has id, source, file, row (its position in
            the file, from 0), reason (see `faults.REASONS`), detail, and raw (the first 2,000 characters).
        on_row: Is called with every row.
        progress: Is called with bytes read.

    Raises:
        UserError: a source does not exist, cannot be read, or has no known format.
    """
    reports = []
    with ExampleWriter(out, quarantine) as writer:
        for source, location in zip(sources, locate_sources(sources, base=base), strict=True):
            counts = SourceCounts(name=location.name, path=source.path)
            for row in stream_rows(source, location, counts, progress=progress):
                if on_row is not None:
                    on_row(row)
                row_id = f"{location.name}:{row.position}"
                if isinstance(row.result, Fault):
                    writer.quarantine(row_id, row.source, row.file, row.file_row, row.value, row.result)
                else:
                    writer.add(row_id, row.source, row.result)
            reports.append(counts.report())
    return IngestReport(tuple(reports))


def sources_fingerprint(sources: Sequence[Source], *, base: Path) -> str:
    """The hash of everything that the examples depend on: the bytes of all files, and how they are read.

    Raises:
        UserError: a source does not exist, or its files are of a kind that is not read.
    """
    return fingerprint_of_hashes(
        (location.name, source, [(name, file_sha256(path)) for name, path in hashed_files(location)])
        for source, location in zip(sources, locate_sources(sources, base=base), strict=True)
    )


def fingerprint_of_hashes(hashed: Iterable[tuple[str, Source, list[tuple[str, str]]]]) -> str:
    """What `sources_fingerprint` returns, from the name, the section, and the files (name, SHA-256) of each source."""
    documents = []
    for name, source, hashes in hashed:
        settings = source.model_dump(include={"format", "columns", "roles", "split", "source_column", "limit"})
        documents.append([name, settings, hashes])
    return hashlib.sha256(json.dumps([RULES, documents], sort_keys=True).encode()).hexdigest()


def locate_sources(
    sources: Sequence[Source], *, base: Path, find: Callable[..., SourceLocation] = locate
) -> list[SourceLocation]:
    """Where the sources are, each under a name of its own: the second `data` becomes `data-2`; `find` is `locate`, or
    finds other addresses too.

    Raises:
        UserError: a source does not exist, or its files are of a kind that is not read.
    """
    taken = {source.name for source in sources if source.name}
    locations = []
    for source in sources:
        location = find(source.path, base=base)
        name, copies = source.name or location.name, 1
        while not source.name and name in taken:
            copies += 1
            name = f"{location.name}-{copies}"
        taken.add(name)
        locations.append(replace(location, name=name))
    return locations


def curated_notes(sources: Sequence[Source], *, base: Path) -> dict[str, CuratedNotes]:
    """By name, the sources all of whose files are of one curated set, with what it says of itself.

    Raises:
        UserError: a source does not exist, or its files are of a kind that is not read.
    """
    notes_of_sources = {}
    for source, location in zip(sources, locate_sources(sources, base=base), strict=True):
        notes = [CuratedNotes.read(file) for file in location.files]
        first = notes[0] if notes and not (source.columns or source.roles) else None
        if first is not None and all(note is not None and note.metadata() == first.metadata() for note in notes):
            notes_of_sources[location.name] = first
    return notes_of_sources


def stream_rows(
    source: Source, location: SourceLocation, counts: SourceCounts, *, progress: Progress | None = None
) -> Iterator[IngestedRow]:
    """The rows of a source, one after the other.

    Args:
        source: As in the recipe.
        location: Where it is; see `locate_sources`.
        counts: Is updated with every row.
        progress: Is called with bytes read.

    Raises:
        UserError: the source cannot be read, or has no known format.
    """
    counts.note_skipped(location)
    parts = list(source_parts(location, positions=are_positions(source.columns)))
    bytes_read = _ByteProgress(progress, f"reading {location.name}", total=sum(part.bytes for part in parts))
    for part in parts:
        yield from _stream_part(source, part, counts, bytes_read)
        bytes_read.finish_part(part.bytes)
        if source.limit is not None and counts.rows >= source.limit:
            break


def _stream_part(
    source: Source, part: SourcePart, counts: SourceCounts, bytes_read: _ByteProgress
) -> Iterator[IngestedRow]:
    rows = part.open(lambda warning: counts.warnings.append(f"{part.name}: {warning}"), bytes_read.add)
    if source.limit is not None:
        rows = islice(rows, source.limit - counts.rows)
    if part.curated is not None and not (source.columns or source.roles):
        yield from _stream_published(source, part, rows, counts)
        return
    # 1. Detect the format from the first rows.
    rows = map(as_object, rows)
    sample, objects = _first_rows(rows)
    columns = list(dict.fromkeys(column for row in objects for column in row))
    counts.columns.update(dict.fromkeys(columns))
    converter = RowConverter(objects, where=part.name, name=source.format, given=source.columns, roles=source.roles)
    if objects:
        _check_source_column(source, columns, where=part.name)
    # 2. Convert every row, those of the sample included.
    split = source.split or part.split
    first = counts.rows
    for row in chain(sample, rows):
        row_format, result = converter.convert(row, split=split, own_split=source.split is None)
        position = counts.rows
        counts.count(result)
        name = _name_of_part(row, counts.name, source.source_column)
        yield IngestedRow(position, name, part.name, position - first, row, row_format, result)
    counts.formats.update(list(converter.formats))
    counts.warnings += [f"{part.name}: {warning}" for warning in converter.warnings()]
    counts.files.append(FileRecord(file=part.name, sha256=part.sha256(), bytes=part.bytes, rows=counts.rows - first))


def _stream_published(
    source: Source, part: SourcePart, rows: Iterator[Any], counts: SourceCounts
) -> Iterator[IngestedRow]:
    """The rows of a file of a curated set, as they were; each counts under the name of its source in the first run."""
    first = counts.rows
    for row in rows:
        counts.columns.update(dict.fromkeys(row if isinstance(row, dict) else ()))
        result = row if isinstance(row, Fault) else published_row(row, split=source.split or part.split)
        position = counts.rows
        counts.count(result)
        own = row.get("source") if isinstance(row, dict) and source.source_column in (None, "source") else None
        name = own or _name_of_part(row, counts.name, source.source_column)
        yield IngestedRow(position, name, part.name, position - first, row, None, result)
    counts.formats.update(["messages"])
    counts.files.append(FileRecord(file=part.name, sha256=part.sha256(), bytes=part.bytes, rows=counts.rows - first))


def _check_source_column(source: Source, columns: Sequence[str], *, where: str) -> None:
    column = source.source_column
    if column is not None and column not in columns:
        raise UserError(
            f"{where}: source_column: there is no column {column!r}.{did_you_mean(column, columns)} "
            f"Columns found: {', '.join(columns) or 'none'}."
        )


def _name_of_part(row: Any, source: str, column: str | None) -> str:
    """`source/value` for the value of the column that names the part of a mixture; `source` where there is none."""
    value = row.get(column) if column is not None and isinstance(row, dict) else None
    if not isinstance(value, (str, int)) or not str(value).strip():
        return source
    return f"{source}/{visible(str(value).strip()[:_PART_NAME_CHARACTERS])}"


def _first_rows(rows: Iterator[Any]) -> tuple[list[Any], list[Row]]:
    """The first rows, until enough of them are objects to detect their format; and those objects."""
    sample: list[Any] = []
    objects: list[Row] = []
    for row in rows:
        sample.append(row)
        if isinstance(row, dict):
            objects.append(row)
        if len(objects) == _SAMPLE_ROWS or len(sample) == _SAMPLE_ROWS * 100:
            break
    return sample, objects


@dataclass
class _ByteProgress:
    """Progress in bytes over all parts of a source."""

    progress: Progress | None
    label: str
    total: int
    of_finished_parts: int = 0
    of_part: int = 0

    def add(self, count: int) -> None:
        """Count bytes of the part that is being read."""
        self.of_part += count
        if self.progress is not None and self.total:
            self.progress(self.label, min(self.of_finished_parts + self.of_part, self.total), self.total)

    def finish_part(self, size: int) -> None:
        """Count a part of `size` bytes as read, whatever was counted of it before."""
        self.of_finished_parts, self.of_part = self.of_finished_parts + size, 0
        self.add(0)
