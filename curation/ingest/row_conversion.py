"""One row to one example or one fault: the format reads it, `repair_turns` judges it, `meta` keeps the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from siftune.curation.formats.cells import Columns, Row, json_text
from siftune.curation.formats.faults import MAX_CELL, Fault
from siftune.curation.formats.format import Format
from siftune.curation.formats.turns import Turns, repair_turns
from siftune.curation.split_names import standard_split

_STANDARD_ROLES = frozenset(("user", "assistant", "system", "tool"))


class Example(NamedTuple):
    """A row that can be trained on: one row of EXAMPLES, but for its id and the name of its source."""

    split: str | None
    turns: Turns
    meta: str


@dataclass(frozen=True)
class RowFormat:
    """How the rows of a file are converted.

    Attributes:
        format: The format of the rows.
        columns: Role to column.
        in_messages: Columns that are in the messages, so that `meta` need not hold them.
        partly_in_messages: Columns of which only a part is in the messages: lists and objects stay in `meta`.
    """

    format: Format
    columns: Columns
    in_messages: frozenset[str]
    partly_in_messages: tuple[str, ...]

    @classmethod
    def of(cls, spec: Format, columns: Columns) -> RowFormat:
        """A format with its mapping of roles to columns."""
        in_messages = frozenset(column for role, column in columns.items() if role not in spec.meta)
        partly = tuple(columns[role] for role in spec.meta_lists if role in columns)
        return cls(spec, columns, in_messages, partly)


def convert_row(row: Any, row_format: RowFormat | None, *, split: str | None, own_split: bool) -> Example | Fault:
    """The example that a row is, or why it is none.

    Args:
        row: A JSON value; a `Fault` when the reader could not parse it.
        row_format: None when no row of the file has columns.
        split: The split of the file.
        own_split: Whether the row's own column `split` takes precedence over that.
    """
    if row.__class__ is not dict:
        return row if isinstance(row, Fault) else Fault("not_an_object", f"a JSON {type(row).__name__}")
    if row_format is None:
        return Fault("missing_prompt", "no columns that can be read")
    try:
        return _convert_object(row, row_format, split=split, own_split=own_split)
    except RecursionError:
        return Fault("wrong_type", "nested too deeply")


def _convert_object(row: Row, row_format: RowFormat, *, split: str | None, own_split: bool) -> Example | Fault:
    turns = row_format.format.convert(row, row_format.columns)
    repaired = turns if isinstance(turns, Fault) else repair_turns(turns)
    if isinstance(repaired, Fault):
        return _damage(row) or repaired
    turns, repairs = repaired
    # Everything that is not in the messages goes to `meta`.
    rest = {column: value for column, value in row.items() if column not in row_format.in_messages}
    for column in row_format.partly_in_messages:
        if isinstance(row.get(column), (list, dict)):
            rest[column] = row[column]
    # A column `split` stays in `meta` only where its standard name is another word.
    own = rest.get("split")
    if own_split and isinstance(own, str) and own.strip():
        split = standard_split(own)
        if split == own:
            del rest["split"]
    if any(turn.fields for turn in turns):
        rest["_turns"] = {str(position): turn.fields for position, turn in enumerate(turns) if turn.fields}
    if repairs:
        rest["_repairs"] = repairs
    meta = json_text(rest) if rest else "{}"
    # Every cell is looked at only where a cheap look at the example finds something suspicious.
    if _is_suspicious(turns, meta) and (fault := _damage(row)):
        return fault
    return Example(split, turns, meta)


def _is_suspicious(turns: Turns, meta: str) -> bool:
    """Whether the example may hold a NUL, a lone surrogate or an oversized cell; never false where it does."""
    if len(meta) * 4 >= MAX_CELL or "\\u0000" in meta or not _is_encodable(meta):
        return True
    for turn in turns:
        content = turn.content
        if "\0" in content or len(content) * 4 >= MAX_CELL or not _is_encodable(content):
            return True
        if turn.role not in _STANDARD_ROLES and ("\0" in turn.role or not _is_encodable(turn.role)):
            return True
    return False


def _is_encodable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _damage(row: Row) -> Fault | None:
    """The first text of a row, keys included, that no example may hold."""
    for text in _all_texts(row):
        if "\0" in text:
            return Fault("nul_byte", "a NUL character")
        if not _is_encodable(text):
            return Fault("lone_surrogate", "half of a surrogate pair")
        if len(text) * 4 >= MAX_CELL and len(text.encode()) >= MAX_CELL:
            return Fault("oversized_cell", f"a cell of {len(text.encode()):,} bytes")
    return None


def _all_texts(value: Any) -> Iterator[str]:
    """Every text within a value, without recursion: the data decide how deep it is nested."""
    stack = [value]
    while stack:
        value = stack.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            stack.extend(key for key in value if isinstance(key, str))
            stack.extend(value.values())
        elif isinstance(value, (list, tuple)):
            stack.extend(value)
