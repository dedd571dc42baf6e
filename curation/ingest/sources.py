"""Sources in, EXAMPLES out: every input row becomes an example or stands in the quarantine with its reason.

Rows keep their order: sources as the recipe lists them, files by name, rows as they stand. The id of a row is its
source's name and its place among *all* rows of the source, quarantined ones included, so that
rows read = examples + quarantined, per source and in total.

The split of a row is what the source says in the recipe; else its own column `split`; else the split that a folder,
a hub data set or the name of one of several files gives it. `val`, `dev` and `valid` are spelled `validation`.

`meta` is a JSON object of all columns that are not in the messages, keys sorted. Two keys may be added: `_turns`, what
messages had besides role and content, by the position of the turn; `_repairs`, what was mended.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from siftune.curation.errors import UserError, did_you_mean
from siftune.curation.formats import choose, positional
from siftune.curation.formats.conversation import Fault, Row
from siftune.curation.ingest import source_files as files
from siftune.curation.ingest import source_parts
from siftune.curation.ingest.example_writer import ExampleWriter
from siftune.curation.ingest.row_conversion import Example, Reading, example
from siftune.curation.ingest.source_files import Located
from siftune.curation.ingest.source_parts import Part
from siftune.curation.progress import Progress
from siftune.curation.recipe.sections import Source
from siftune.curation.text.hidden_characters import visible

#: Part of every fingerprint: raise it when the same files begin to give other examples.
RULES = 1
_SOURCE_NAME = 100  # characters of a part's name that are kept
_SAMPLE = 100  # rows that are looked at before the format is decided


@dataclass(frozen=True)
class FileReport:
    """One file as it was read: its place (relative to the source), the hash and the number of its bytes, its rows."""

    file: str
    sha256: str
    bytes: int
    rows: int


@dataclass(frozen=True)
class SourceReport:
    """One source as it was read; rows = examples + the sum of `quarantined` (rows by reason)."""

    name: str
    path: str
    format: str
    columns: tuple[str, ...]
    files: tuple[FileReport, ...]
    rows: int
    examples: int
    quarantined: dict[str, int]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class IngestReport:
    """What was read, source by source."""

    sources: tuple[SourceReport, ...]

    @property
    def rows(self) -> int:
        """Input rows of all sources."""
        return sum(source.rows for source in self.sources)

    @property
    def examples(self) -> int:
        """Rows that became examples."""
        return sum(source.examples for source in self.sources)


class Item(NamedTuple):
    """An input row: its place in the source and in its file, the row, how it was read, and what became of it.

    `source` is the name that it counts under: the source's own, or its part of a mixture.
    """

    place: int
    source: str
    file: str
    file_row: int
    row: Any
    reading: Reading | None
    result: Example | Fault


@dataclass
class Tally:
    """What is counted while a source is read."""

    name: str
    path: str
    formats: Counter[str] = field(default_factory=Counter)
    columns: dict[str, None] = field(default_factory=dict)
    files: list[FileReport] = field(default_factory=list)
    rows: int = 0
    examples: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)

    def count(self, result: Example | Fault) -> None:
        """One more row, and what became of it."""
        self.rows += 1
        if isinstance(result, Fault):
            self.quarantined[result.reason] += 1
        else:
            self.examples += 1

    def report(self) -> SourceReport:
        """The finished report."""
        if self.rows and not self.examples:
            self.warnings.append("no row of it could be used")
        elif not self.rows:
            self.warnings.append("it holds no rows")
        return SourceReport(
            name=self.name,
            path=self.path,
            format=", ".join(self.formats) or "none",
            columns=tuple(self.columns),
            files=tuple(self.files),
            rows=self.rows,
            examples=self.examples,
            quarantined=dict(sorted(self.quarantined.items())),
            warnings=tuple(dict.fromkeys(self.warnings)),
        )


def read(
    sources: Sequence[Source], *, base: Path, out: Path, quarantine: Path, progress: Progress | None = None
) -> IngestReport:
    """Read all sources into one EXAMPLES parquet at `out`; rows that cannot be used go to `quarantine` (JSON Lines).

    A line of the quarantine: id, source, file, row (its place in the file, from 0), reason (see
    `conversation.REASONS`), detail, raw (the first 2,000 characters). Both files are written atomically.

    Raises:
        UserError: a source is not there, cannot be read, or is of no known format.
    """
    reports = []
    with ExampleWriter(out, quarantine) as writer:
        for source, place in zip(sources, named(sources, base=base), strict=True):
            tally = Tally(name=place.name, path=source.path)
            for item in stream(source, place, tally, progress=progress):
                row_id = f"{place.name}:{item.place}"
                if isinstance(item.result, Fault):
                    writer.quarantine(row_id, item.source, item.file, item.file_row, item.row, item.result)
                else:
                    writer.add(row_id, item.source, item.result)
            reports.append(tally.report())
    return IngestReport(tuple(reports))


def fingerprint(sources: Sequence[Source], *, base: Path) -> str:
    """What the examples depend on, as one hash: the bytes of all files, and how they are to be read.

    Raises:
        UserError: a source is not there or of a kind that is not read.
    """
    told = []
    for source, place in zip(sources, named(sources, base=base), strict=True):
        hashes = [(name, files.sha256(file)) for name, file in source_parts.hashed(place)]
        settings = source.model_dump(include={"format", "columns", "split", "source_column", "limit"})
        told.append([place.name, settings, hashes])
    return hashlib.sha256(json.dumps([RULES, told], sort_keys=True).encode()).hexdigest()


def named(sources: Sequence[Source], *, base: Path) -> list[Located]:
    """Where the sources are, each under a name of its own: the second `data` becomes `data-2`.

    Raises:
        UserError: a source is not there or of a kind that is not read.
    """
    taken = {source.name for source in sources if source.name}
    distinct = []
    for source in sources:
        place = files.locate(source.path, base=base)
        name, copies = source.name or place.name, 1
        while not source.name and name in taken:
            copies += 1
            name = f"{place.name}-{copies}"
        taken.add(name)
        distinct.append(replace(place, name=name))
    return distinct


def stream(source: Source, place: Located, tally: Tally, *, progress: Progress | None = None) -> Iterator[Item]:
    """The rows of a source, one after the other, counted in `tally`. Raises `UserError` like `read`."""
    if place.skipped:
        tally.warnings.append(f"left out, not rows: {', '.join(file.name for file in place.skipped[:5])}")
    found = list(source_parts.of(place, positions=positional(source.columns)))
    told = _Told(progress, f"reading {place.name}", total=sum(part.bytes for part in found))
    for part in found:
        yield from _stream_part(source, part, tally, told)
        told.finish(part.bytes)
        if source.limit is not None and tally.rows >= source.limit:
            break


def _stream_part(source: Source, part: Part, tally: Tally, told: _Told) -> Iterator[Item]:
    rows = part.open(lambda warning: tally.warnings.append(f"{part.name}: {warning}"), told)
    if source.limit is not None:
        rows = islice(rows, source.limit - tally.rows)
    sample, objects = _sample(rows)
    columns = list(dict.fromkeys(column for row in objects for column in row))
    tally.columns.update(dict.fromkeys(columns))
    reading = None
    if objects:
        form, mapping = choose(objects, columns, where=part.name, name=source.format, given=source.columns)
        reading = Reading.of(form, mapping)
        tally.formats[form.name] += 1
        _check_source_column(source, columns, where=part.name)
    split = source.split or part.split
    before = tally.rows
    for row in chain(sample, rows):
        result = example(row, reading, split=split, own_split=source.split is None)
        tally.count(result)
        name = _source_of(row, tally.name, source.source_column)
        yield Item(tally.rows - 1, name, part.name, tally.rows - 1 - before, row, reading, result)
    tally.files.append(FileReport(part.name, part.sha256(), part.bytes, tally.rows - before))


def _check_source_column(source: Source, columns: Sequence[str], *, where: str) -> None:
    wanted = source.source_column
    if wanted is not None and wanted not in columns:
        raise UserError(
            f"{where}: source_column: there is no column {wanted!r}.{did_you_mean(wanted, columns)} "
            f"Columns found: {', '.join(columns) or 'none'}."
        )


def _source_of(row: Any, name: str, column: str | None) -> str:
    """`name`, or `name/value` for the value of the column that says which part of a mixture the row is from."""
    value = row.get(column) if column is not None and isinstance(row, dict) else None
    if not isinstance(value, (str, int)) or not str(value).strip():
        return name
    return f"{name}/{visible(str(value).strip()[:_SOURCE_NAME])}"


def _sample(rows: Iterator[Any]) -> tuple[list[Any], list[Row]]:
    """The first rows, until enough of them are objects to tell their format; and those objects."""
    taken: list[Any] = []
    objects: list[Row] = []
    for row in rows:
        taken.append(row)
        if isinstance(row, dict):
            objects.append(row)
        if len(objects) == _SAMPLE or len(taken) == _SAMPLE * 100:
            break
    return taken, objects


@dataclass
class _Told:
    """Progress in bytes over all files of a source."""

    progress: Progress | None
    label: str
    total: int
    finished: int = 0
    within: int = 0

    def __call__(self, more: int) -> None:
        self.within += more
        if self.progress is not None and self.total:
            self.progress(self.label, min(self.finished + self.within, self.total), self.total)

    def finish(self, size: int) -> None:
        """A file of `size` bytes is done, whatever was told of it before."""
        self.finished, self.within = self.finished + size, 0
        self(0)
