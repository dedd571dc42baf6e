"""Rows of Parquet and Arrow files and of Arrow tables."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from siftune.curation.errors import UserError
from siftune.curation.formats.cells import Row
from siftune.curation.formats.faults import Fault
from siftune.curation.ingest.decompression import OnBytes, Warn, compression, read_pieces
from siftune.curation.ingest.file_kinds import FileKind

BATCH_ROWS = 4096


def read_table_file(path: Path, kind: FileKind, *, warn: Warn, on_bytes: OnBytes | None) -> Iterator[Any]:
    """The rows of a Parquet or Arrow file; a row whose text is not UTF-8 is a `Fault`.

    Args:
        path: The file; a compressed one is unpacked to a temporary file first.
        kind: `parquet` or `arrow`.
        warn: Is called when the file is truncated.
        on_bytes: Is called with the number of bytes read for each batch.

    Raises:
        UserError: the file as a whole cannot be read.
    """
    with tempfile.TemporaryFile() as unpacked, path.open("rb") as packed:
        file: IO[bytes] = packed
        if compression(path) is not None:
            for piece in read_pieces(path, warn=warn):
                unpacked.write(piece)
            unpacked.seek(0)
            file = unpacked
        for batch in _parquet(file, path, on_bytes) if kind == "parquet" else _arrow(file, path, warn, on_bytes):
            try:
                yield from table_rows(batch)
            except (pa.ArrowException, OverflowError, ValueError) as error:  # a date of the year 300,000 is no value
                raise UserError(
                    f"{path} holds a damaged table: {_one_line(error)} Fetch or write the file again."
                ) from None


def table_rows(table: pa.RecordBatch | pa.Table) -> Iterator[Any]:
    """The rows of an Arrow table or batch, maps as objects; a row whose text is not UTF-8 is a `Fault`.

    Raises:
        pyarrow.ArrowException: the table is damaged.
    """
    for column in table.columns:
        try:
            column.validate(full=True)  # offsets that point out of their buffers would end the process
        except pa.ArrowException as error:
            if "UTF8" not in str(error):  # a text that is not UTF-8 costs its row alone
                raise
    for start in range(0, table.num_rows, BATCH_ROWS):
        part = table.slice(start, BATCH_ROWS)
        try:
            yield from part.to_pylist(maps_as_pydicts="lossy")
        except UnicodeDecodeError:
            yield from (_only_row(part.slice(index, 1)) for index in range(part.num_rows))


def _only_row(part: pa.RecordBatch | pa.Table) -> Row | Fault:
    try:
        return part.to_pylist(maps_as_pydicts="lossy")[0]
    except UnicodeDecodeError as error:
        return Fault("bad_encoding", str(error.reason), repr(error.object[:1000]))


def _parquet(file: IO[bytes], path: Path, on_bytes: OnBytes | None) -> Iterator[pa.RecordBatch]:
    try:
        table = pq.ParquetFile(file)
        for batch in table.iter_batches(batch_size=BATCH_ROWS):
            yield batch
            if on_bytes is not None:
                on_bytes(path.stat().st_size * batch.num_rows // table.metadata.num_rows)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(
            f"{path} cannot be read as Parquet: {_one_line(error)} "
            "A Parquet file has its index at the end: nothing can be read of a truncated one. Fetch the file again."
        ) from None


def _arrow(file: IO[bytes], path: Path, warn: Warn, on_bytes: OnBytes | None) -> Iterator[pa.RecordBatch]:
    """Batches of an IPC file by its index, or of an IPC stream. A truncated file has lost its index: what comes after
    its magic word is read as a stream, which it is for most writers (not for polars).
    """
    magic = file.read(8)
    is_file = magic.startswith(b"ARROW1")
    table: Any = None
    stream: Any = None
    if is_file:
        with suppress(pa.ArrowInvalid, OSError):
            table = pa.ipc.open_file(file)
    try:
        file.seek(8 if is_file else 0)
        stream = pa.ipc.open_stream(file) if table is None else None
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} cannot be read as Arrow: {_one_line(error)} Fetch or write the file again.") from None
    for number in itertools.count():
        try:
            if table is not None and number == table.num_record_batches:
                return
            batch = table.get_batch(number) if stream is None else stream.read_next_batch()
        except StopIteration:
            return
        except (pa.ArrowInvalid, OSError):
            warn("the file is truncated: its last batch of rows was lost")
            return
        yield batch
        if on_bytes is not None:
            on_bytes(batch.nbytes)


def _one_line(error: Exception) -> str:
    return f"{' '.join(str(error).split()).rstrip('.')}."
