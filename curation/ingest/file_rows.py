"""The rows of a file, whatever its kind. A row that cannot be parsed is a `Fault` at its position.

A row is an object of JSON, a non-blank line of JSONL, a record of CSV, or a row of Parquet or Arrow.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from siftune.curation.errors import UserError
from siftune.curation.formats.faults import MAX_ROW
from siftune.curation.ingest import arrow_reader, csv_reader, json_reader
from siftune.curation.ingest.decompression import OnBytes, Warn, read_pieces
from siftune.curation.ingest.file_kinds import file_kind
from siftune.curation.ingest.json_layouts import LayoutReader

_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
#: How files begin that are no text, whatever their name says, and what to do with them.
_OTHER_KINDS = {
    b"PAR1": "a Parquet file. Rename it to end in .parquet",
    b"ARROW1": "an Arrow file. Rename it to end in .arrow",
    b"PK\x03\x04": "a ZIP archive or a spreadsheet of Excel. Unpack it, or save the sheet as CSV",
    b"SQLite format 3": "a database of SQLite. Write its table as CSV or JSON Lines",
    b"%PDF": "a PDF. Only tables and JSON are read",
    b"<!doctype html": "a page of HTML, perhaps an error message of the server. Fetch the file again",
    b"<html": "a page of HTML, perhaps an error message of the server. Fetch the file again",
}


def read_rows(
    path: Path,
    *,
    warn: Warn,
    positions: bool = False,
    on_bytes: OnBytes | None = None,
    max_row: int = MAX_ROW,
) -> Iterator[Any]:
    """The rows of a file in order: objects, a `Fault` for what cannot be parsed, any other JSON value as it is.

    Args:
        path: The file; its ending says how it is read.
        warn: Is called with what the user should know of the file.
        positions: Columns are named by their position ("0", "1" …): CSV without a header, JSON lists as rows.
        on_bytes: Is called with the number of bytes read for each piece.
        max_row: Bytes from which on a line of text is no row.

    Raises:
        UserError: the file as a whole cannot be read.
    """
    kind = file_kind(path)
    if kind in ("parquet", "arrow"):
        return arrow_reader.read_table_file(path, kind, warn=warn, on_bytes=on_bytes)
    pieces = _without_bom(read_pieces(path, warn=warn, on_bytes=on_bytes), path)
    if kind in ("csv", "tsv"):
        delimiter = "\t" if kind == "tsv" else None
        return csv_reader.read_records(
            pieces, path, delimiter=delimiter, positions=positions, warn=warn, max_row=max_row
        )
    values = json_reader.read_values(pieces, path, is_lines=kind == "jsonl", warn=warn, max_row=max_row)
    rows = LayoutReader(path, warn, positions=positions).rows(values)
    return map(_by_position, rows) if positions else rows


def _by_position(row: Any) -> Any:
    return {str(position): cell for position, cell in enumerate(row)} if isinstance(row, list) else row


def _without_bom(pieces: Iterator[bytes], path: Path) -> Iterator[bytes]:
    first = True
    for piece in pieces:
        if first and piece:
            first = False
            if piece.startswith(_UTF16_BOMS):
                raise UserError(
                    f"{path} is encoded in UTF-16; files are read as UTF-8. Convert it: iconv -f UTF-16 -t UTF-8"
                )
            beginning = piece[:20].lstrip().lower()
            if kind := next((kind for mark, kind in _OTHER_KINDS.items() if beginning.startswith(mark.lower())), ""):
                raise UserError(f"{path} is {kind}.")
            yield piece.removeprefix(_BOM)
        else:
            yield piece
