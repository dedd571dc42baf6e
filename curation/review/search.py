"""Full-text search over a run: an SQLite FTS5 index that is made with the run and answers from disk.

A scan of the texts of a million rows takes seconds; the index answers in tens of milliseconds and holds no copy of
the texts, only postings and the first words of every prompt for lists.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from siftune.curation.atomic_files import replacing
from siftune.curation.checksums import is_whole
from siftune.curation.progress import Progress
from siftune.curation.review.catalogue import Catalogue, Positions
from siftune.curation.run.folder import RunFolder

PREVIEW = 120
#: The index holds the beginnings of words from this length on; shorter ones would match nearly every row, slowly.
SHORTEST_PREFIX = 3
_BATCH = 20_000
_LAYOUT = "3"
#: A word, a "phrase", either with a leading minus; a word may end in an asterisk.
_TERM = re.compile(r'(-?)(?:"([^"]*)"?|(\S+))')
_PIECES = re.compile(r"\w+")


def index_path(run: RunFolder) -> Path:
    """Where the index of a run lies."""
    return run.path / "search.sqlite"


@dataclass(frozen=True)
class TextIndex:
    """An index on disk. Safe to use from several threads: each call opens the file anew."""

    path: Path

    @classmethod
    def open(cls, run: RunFolder) -> TextIndex | None:
        """The index of a run, or None when there is none for its present texts."""
        path = index_path(run)
        if not is_whole(path):
            return None
        try:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
                stamp = db.execute("SELECT value FROM about WHERE name = 'stamp'").fetchone()
        except sqlite3.DatabaseError:
            return None
        return cls(path) if stamp == (_stamp(run),) else None

    @classmethod
    def build(cls, catalogue: Catalogue, *, progress: Progress | None = None) -> TextIndex:
        """Index the prompt and the answer of every row; about 10 MB of text a second."""
        path = index_path(catalogue.run)
        with replacing(path, checked=True) as temporary, closing(sqlite3.connect(temporary)) as db:
            db.executescript(
                "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA page_size=16384; PRAGMA cache_size=-65536;"
                "CREATE TABLE about(name TEXT PRIMARY KEY, value TEXT);"
                "CREATE TABLE previews(position INTEGER PRIMARY KEY, prompt TEXT, answer TEXT);"
                "CREATE VIRTUAL TABLE texts USING fts5(prompt, answer, content='', columnsize=0, prefix='3',"
                ' tokenize="unicode61 remove_diacritics 2");'
            )
            for done, batch in _batches(catalogue):
                db.executemany("INSERT INTO texts(rowid, prompt, answer) VALUES (?, ?, ?)", batch)
                db.executemany(
                    "INSERT INTO previews VALUES (?, ?, ?)", ((n, p[:PREVIEW], a[:PREVIEW]) for n, p, a in batch)
                )
                if progress:
                    progress("index", done, len(catalogue))
            db.execute("INSERT INTO about VALUES ('stamp', ?)", (_stamp(catalogue.run),))
            db.commit()
        return cls(path)

    def search(self, text: str) -> Positions:
        """Positions, rising, of the rows that hold every term of `text`; see `to_match` for what a term is."""
        expression = to_match(text)
        if expression is None:
            return np.empty(0, dtype=np.uint32)
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as db:
            # One joined string is five times faster to fetch than a million rows.
            joined = db.execute("SELECT group_concat(rowid) FROM texts WHERE texts MATCH ?", (expression,)).fetchone()[
                0
            ]
        return np.sort(_numbers(joined or ""))

    def previews(self, positions: Sequence[int] | Positions) -> dict[int, tuple[str, str]]:
        """The first characters of prompt and answer of the rows at `positions`; quarantined rows are absent."""
        numbers = [int(position) for position in positions]
        marks = ",".join("?" * len(numbers))
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as db:
            rows = db.execute(f"SELECT * FROM previews WHERE position IN ({marks})", numbers).fetchall()  # noqa: S608
        return {position: (prompt, answer) for position, prompt, answer in rows}


def to_match(text: str) -> str | None:
    """What a person typed as an FTS5 expression that is always valid; None when nothing in it can be searched.

    Words must all occur; `"a phrase"` in this order; `wor*` is a prefix (of three letters or more); `-word` must not
    occur. Everything else, FTS5 operators too, is taken as text.
    """
    required: list[str] = []
    excluded: list[str] = []
    for minus, phrase, word in _TERM.findall(text):
        pieces = _PIECES.findall(phrase or word)
        if pieces:
            star = "*" if word.endswith("*") and len(pieces[-1]) >= SHORTEST_PREFIX else ""
            (excluded if minus else required).append(f'"{" ".join(pieces)}"{star}')
    if not required:
        return None
    expression = " AND ".join(required)
    return f"({expression}) NOT ({' OR '.join(excluded)})" if excluded else expression


def _batches(catalogue: Catalogue) -> Iterator[tuple[int, list[tuple[int, str, str]]]]:
    import pyarrow.parquet as pq

    examples = catalogue.example_positions
    rows_with_text = np.flatnonzero(examples >= 0)
    row_of = np.full(int(examples.max(initial=-1)) + 1, -1, dtype=np.int64)
    row_of[examples[rows_with_text]] = rows_with_text
    start = 0
    with pq.ParquetFile(catalogue.run.texts) as file:
        for batch in file.iter_batches(_BATCH, columns=["prompt", "answer"]):
            frame = pl.DataFrame(pl.from_arrow(batch)).fill_null("")
            positions = row_of[start : start + frame.height]
            start += frame.height
            rows = zip(positions.tolist(), frame["prompt"].to_list(), frame["answer"].to_list(), strict=True)
            yield start, [row for row in rows if row[0] >= 0]


def _numbers(joined: str) -> npt.NDArray[np.uint32]:
    return np.fromstring(joined, dtype=np.uint32, sep=",") if joined else np.empty(0, dtype=np.uint32)


def _stamp(run: RunFolder) -> str:
    """Changes when the indexed texts do. Their file is named by its content, so that a run that was moved or decided
    again keeps its index.
    """
    return f"{_LAYOUT} {run.texts.name} {run.texts.stat().st_size}"
