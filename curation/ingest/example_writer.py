"""Writes EXAMPLES and the quarantine, batch by batch; the files appear complete or not at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from siftune.curation.atomic_files import replacing
from siftune.curation.formats.cells import json_text
from siftune.curation.formats.faults import Fault
from siftune.curation.ingest.row_conversion import Example

ROW_GROUP = 50_000
#: A row group of long texts is closed earlier, so that memory stays bounded.
MAX_CHARACTERS = 200_000_000
_RAW_CHARACTERS = 2_000  # of a quarantined row that are kept

_TEXT = pa.large_string()
_MESSAGE = pa.struct([("role", _TEXT), ("content", _TEXT)])
#: `schema.EXAMPLES` in Arrow.
EXAMPLES_ARROW = pa.schema(
    [("id", _TEXT), ("source", _TEXT), ("split", _TEXT), ("messages", pa.large_list(_MESSAGE)), ("meta", _TEXT)]
)


class ExampleWriter:
    """Writes EXAMPLES to `out` and faults to `quarantine`; both appear when the `with` block ends without an error."""

    def __init__(self, out: Path, quarantine: Path) -> None:
        self._out, self._quarantine = out, quarantine
        self._batch = _ExampleBatch()

    def __enter__(self) -> ExampleWriter:
        with ExitStack() as stack:
            quarantine = stack.enter_context(replacing(self._quarantine))
            self._quarantine_file = stack.enter_context(quarantine.open("wb"))
            examples = stack.enter_context(replacing(self._out))
            self._parquet = stack.enter_context(pq.ParquetWriter(examples, EXAMPLES_ARROW, compression="zstd"))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error_type is not None:
            self._stack.__exit__(error_type, error, traceback)
            return
        with self._stack:  # the last batch may not fit on the disk
            self._flush()

    def add(self, row_id: str, source: str, example: Example) -> None:
        """Add an example: its id, the name of its source, and the row itself."""
        self._batch.add(row_id, source, example)
        if self._batch.full:
            self._flush()

    def quarantine(self, row_id: str, source: str, file: str, row: int, value: Any, fault: Fault) -> None:
        """Add a row that is no example.

        Args:
            row_id: The id that the row would have as an example.
            source: The name of its source.
            file: The name of its file.
            row: Its position in the file, from 0.
            value: The row as far as it could be parsed.
            fault: Why it is no example.
        """
        raw = fault.raw or ("" if isinstance(value, Fault) else row_text(value))
        line = {"id": row_id, "source": source, "file": file, "row": row, "reason": fault.reason}
        line |= {"detail": _encodable(fault.detail), "raw": _encodable(raw[:_RAW_CHARACTERS])}
        self._quarantine_file.write(orjson.dumps(line) + b"\n")

    def _flush(self) -> None:
        if self._batch.ids:
            self._parquet.write_table(self._batch.table(), row_group_size=ROW_GROUP)
        self._batch = _ExampleBatch()


class _ExampleBatch:
    """The columns of EXAMPLES while rows are added: flat lists of texts, which cost the garbage collector nothing."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.sources: list[str] = []
        self.splits: list[str | None] = []
        self.metas: list[str] = []
        self.roles: list[str] = []
        self.contents: list[str] = []
        self.offsets: list[int] = [0]
        self.characters = 0

    def add(self, row_id: str, source: str, example: Example) -> None:
        """Add a row."""
        split, turns, meta = example
        self.ids.append(row_id)
        self.sources.append(source)
        self.splits.append(split)
        self.metas.append(meta)
        self.characters += len(meta)
        for role, content, _ in turns:
            self.roles.append(role)
            self.contents.append(content)
            self.characters += len(content)
        self.offsets.append(len(self.roles))

    @property
    def full(self) -> bool:
        """Whether the batch is large enough to be written."""
        return len(self.ids) >= ROW_GROUP or self.characters >= MAX_CHARACTERS

    def table(self) -> pa.Table:
        """The batch as a table of EXAMPLES."""
        messages = pa.StructArray.from_arrays(
            [_text_column(self.roles), _text_column(self.contents)], fields=list(_MESSAGE)
        )
        columns = [_text_column(texts) for texts in (self.ids, self.sources, self.splits, self.metas)]
        offsets = pl.Series(self.offsets, dtype=pl.Int64).to_arrow()
        columns.insert(3, pa.LargeListArray.from_arrays(offsets, messages))
        return pa.Table.from_arrays(columns, schema=EXAMPLES_ARROW)


def _text_column(texts: Sequence[str | None]) -> pa.Array:
    """Texts as Arrow has them; `pyarrow.array` would import pandas to look whether they are one of its columns."""
    return pl.Series(texts, dtype=pl.String).to_arrow(compat_level=pl.CompatLevel.oldest())


def row_text(value: Any) -> str:
    """A row of any kind as JSON text; lone surrogates are escaped, as they must have been in the file."""
    try:
        text = json_text(value)
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, default=str)
    except RecursionError:
        return "(nested too deeply to be shown)"
    return text


def _encodable(text: str) -> str:
    """`text` with a question mark for each lone surrogate."""
    return text.encode(errors="replace").decode()
