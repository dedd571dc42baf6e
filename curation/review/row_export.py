"""Rows of a run as a file that other programs read: parquet, CSV or JSON Lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from siftune.curation import schema
from siftune.curation.atomic_files import replacing
from siftune.curation.review.annotations import Annotation
from siftune.curation.review.catalogue import Catalogue, Positions

ExportFormat = Literal["parquet", "csv", "jsonl"]

#: What a spreadsheet reads as the beginning of a formula, and what may stand before it in a cell: OWASP, "CSV
#: Injection", and the full-width forms of the four signs.
FORMULA = r"^[=+\-@\t\r\n＝＋－＠]"
EXPORTED = pl.Schema(
    [
        *((name, pl.String()) for name in ("id", "source", "fate", "stage", "reason", "split")),
        ("tags", pl.List(pl.String())),
        ("note", pl.String()),
        ("messages", pl.List(schema.MESSAGE)),
        ("meta", pl.String()),
    ]
)
_BATCH = 20_000


def export_rows(
    catalogue: Catalogue,
    positions: Positions,
    path: Path,
    *,
    file_format: ExportFormat,
    annotations: Mapping[str, Annotation],
) -> None:
    """Write rows, in the order of the run, with what became of them, their tags and notes, and their messages.

    CSV has lists as JSON, and an apostrophe before every cell that a spreadsheet would run as a formula.

    Args:
        catalogue: the rows of the run.
        positions: which of them.
        path: the file that is written.
        file_format: its format.
        annotations: the tags and notes of rows by id.
    """
    with replacing(path) as temporary:
        if file_format == "parquet":
            _write_parquet(_frames(catalogue, positions, annotations), temporary)
            return
        with temporary.open("wb") as file:
            for number, frame in enumerate(_frames(catalogue, positions, annotations)):
                if file_format == "jsonl":
                    frame.write_ndjson(file)
                else:
                    without_formulas(flat(frame)).write_csv(file, include_header=number == 0, quote_style="always")


def without_formulas(frame: pl.DataFrame) -> pl.DataFrame:
    """Text columns with an apostrophe before every cell that a spreadsheet would run as a formula."""
    text = pl.col(pl.String)
    return frame.with_columns(pl.when(text.str.contains(FORMULA)).then("'" + text).otherwise(text).name.keep())


def flat(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows of EXPORTED without lists: tags separated by semicolons, what is asked and what is answered as two texts,
    and the messages as JSON.
    """
    turn = pl.element().struct
    asked = pl.element().filter(turn.field("role").ne_missing("assistant")).struct.field("content")
    answered = pl.element().filter(turn.field("role").eq_missing("assistant")).struct.field("content")
    as_json = pl.struct("messages").struct.json_encode().str.strip_prefix('{"messages":').str.strip_suffix("}")
    return frame.select(
        *(name for name in EXPORTED if name not in ("tags", "messages", "meta")),
        pl.col("tags").list.join("; "),
        pl.col("messages").list.eval(asked).list.join("\n").alias("prompt"),
        pl.col("messages").list.eval(answered).list.join("\n").alias("answer"),
        as_json.alias("messages"),
        "meta",
    )


def _write_parquet(frames: Iterator[pl.DataFrame], path: Path) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, schema.empty(EXPORTED).to_arrow().schema, compression="zstd") as writer:
        for frame in frames:
            writer.write_table(frame.to_arrow())


def _frames(
    catalogue: Catalogue, positions: Positions, annotations: Mapping[str, Annotation]
) -> Iterator[pl.DataFrame]:
    """EXPORTED in batches; at least one, which may have no rows."""
    chosen = np.sort(positions)
    examples = pl.scan_parquet(catalogue.run.examples, glob=False).select("messages", "meta")
    for start in range(0, max(1, len(catalogue)), _BATCH):
        part = chosen[np.searchsorted(chosen, start) : np.searchsorted(chosen, start + _BATCH)]
        if not len(part) and start:
            continue
        rows = catalogue.frame[part].select("id", pl.col("source", "fate", "stage", "reason", "split").cast(pl.String))
        texts = _texts(examples, catalogue.example_positions[part])
        given = [annotations.get(row_id, Annotation()) for row_id in rows["id"]]
        tags = pl.Series("tags", [list(one.tags) for one in given], dtype=pl.List(pl.String))
        notes = pl.Series("note", [one.note or None for one in given], dtype=pl.String)
        yield schema.conform(pl.concat([rows.with_columns(tags, notes), texts], how="horizontal"), EXPORTED)


def _texts(examples: pl.LazyFrame, numbers: np.ndarray) -> pl.DataFrame:
    """Messages and other columns of the examples with these rising numbers; null for -1, a row without a text."""
    readable = numbers[numbers >= 0]
    first = int(readable[0]) if len(readable) else 0
    frame = examples.slice(first, int(readable[-1]) + 1 - first if len(readable) else 0).collect()
    positions = pl.Series([int(number) - first if number >= 0 else None for number in numbers], dtype=pl.Int64)
    return frame.select(pl.all().gather(positions))
