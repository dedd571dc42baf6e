"""EXAMPLES and quarantine on their way to disk: in batches, and in one step at the end."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from siftune.curation.atomic_files import replacing
from siftune.curation.formats.conversation import Fault, json_text
from siftune.curation.ingest.row_conversion import Example

ROW_GROUP = 50_000
_MAX_CHARACTERS = 200_000_000  # a row group of long texts is closed earlier, so that memory stays bounded
_RAW = 2_000

_TEXT = pa.large_string()
_MESSAGE = pa.struct([("role", _TEXT), ("content", _TEXT)])
#: `schema.EXAMPLES` in Arrow.
ARROW = pa.schema(
    [("id", _TEXT), ("source", _TEXT), ("split", _TEXT), ("messages", pa.large_list(_MESSAGE)), ("meta", _TEXT)]
)


class ExampleWriter:
    """Writes EXAMPLES to `out` and faults to `quarantine`; both appear when the `with` block ends without a fault."""

    def __init__(self, out: Path, quarantine: Path) -> None:
        self._out, self._quarantine = out, quarantine
        self._batch = _Batch()

    def __enter__(self) -> ExampleWriter:
        with ExitStack() as stack:
            self._faults = stack.enter_context(replacing(self._quarantine))
            self._lines = stack.enter_context(self._faults.open("wb"))
            temporary = stack.enter_context(replacing(self._out))
            self._parquet = stack.enter_context(pq.ParquetWriter(temporary, ARROW, compression="zstd"))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._stack.__exit__(kind, fault, trace)

    def add(self, row_id: str, source: str, example: Example) -> None:
        """One more example."""
        self._batch.add(row_id, source, example)
        if self._batch.full:
            self._flush()

    def quarantine(self, row_id: str, source: str, file: str, row: int, value: Any, fault: Fault) -> None:
        """One more row that is no example; `value` is the row as far as it could be parsed."""
        raw = fault.raw or ("" if isinstance(value, Fault) else _shown(value))
        line = {"id": row_id, "source": source, "file": file, "row": row, "reason": fault.reason}
        self._lines.write(orjson.dumps({**line, "detail": _clean(fault.detail), "raw": _clean(raw[:_RAW])}) + b"\n")

    def _flush(self) -> None:
        if self._batch.ids:
            self._parquet.write_table(self._batch.table(), row_group_size=ROW_GROUP)
        self._batch = _Batch()


class _Batch:
    """Columns of EXAMPLES in the making: flat lists of texts, which cost the garbage collector nothing."""

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
        """One more row."""
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
        """Whether it is time to write."""
        return len(self.ids) >= ROW_GROUP or self.characters >= _MAX_CHARACTERS

    def table(self) -> pa.Table:
        """EXAMPLES."""
        messages = pa.StructArray.from_arrays(
            [pa.array(self.roles, _TEXT), pa.array(self.contents, _TEXT)], fields=list(_MESSAGE)
        )
        columns = [pa.array(texts, _TEXT) for texts in (self.ids, self.sources, self.splits, self.metas)]
        columns.insert(3, pa.LargeListArray.from_arrays(pa.array(self.offsets, pa.int64()), messages))
        return pa.Table.from_arrays(columns, schema=ARROW)


def _shown(value: Any) -> str:
    """A row as JSON text; lone surrogates are escaped, as they must have been in the file."""
    try:
        text = json_text(value)
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, default=str)
    except RecursionError:
        return "(nested too deeply to be shown)"
    return text


def _clean(text: str) -> str:
    return text.encode(errors="replace").decode()
