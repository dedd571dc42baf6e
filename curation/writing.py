"""EXAMPLES and quarantine on their way to disk: in batches, and in one step at the end."""

from __future__ import annotations

import json
from contextlib import ExitStack
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from curation.conversation import Fault, json_text
from curation.examples import Example
from curation.runfolder import replacing

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
        self._rows: list[tuple[str, str, Example]] = []
        self._characters = 0

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
        self._rows.append((row_id, source, example))
        self._characters += len(example.meta) + sum(len(turn.content) for turn in example.turns)
        if len(self._rows) >= ROW_GROUP or self._characters >= _MAX_CHARACTERS:
            self._flush()

    def quarantine(self, row_id: str, source: str, file: str, row: int, value: Any, fault: Fault) -> None:
        """One more row that is no example; `value` is the row as far as it could be parsed."""
        raw = fault.raw or ("" if isinstance(value, Fault) else _shown(value))
        line = {"id": row_id, "source": source, "file": file, "row": row, "reason": fault.reason}
        self._lines.write(orjson.dumps({**line, "detail": _clean(fault.detail), "raw": _clean(raw[:_RAW])}) + b"\n")

    def _flush(self) -> None:
        if self._rows:
            self._parquet.write_table(_table(self._rows), row_group_size=ROW_GROUP)
        self._rows, self._characters = [], 0


def _table(rows: list[tuple[str, str, Example]]) -> pa.Table:
    turns = [turn for _, _, example in rows for turn in example.turns]
    offsets = [0, *accumulate(len(example.turns) for _, _, example in rows)]
    messages = pa.StructArray.from_arrays(
        [pa.array([turn.role for turn in turns], _TEXT), pa.array([turn.content for turn in turns], _TEXT)],
        fields=list(_MESSAGE),
    )
    return pa.Table.from_arrays(
        [
            pa.array([row_id for row_id, _, _ in rows], _TEXT),
            pa.array([source for _, source, _ in rows], _TEXT),
            pa.array([example.split for _, _, example in rows], _TEXT),
            pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), messages),
            pa.array([example.meta for _, _, example in rows], _TEXT),
        ],
        schema=ARROW,
    )


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
