"""One row in, one example or one fault out: the format reads it, `settle` judges it, `meta` keeps the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from siftune.curation.formats.conversation import MAX_CELL, Columns, Fault, Format, Row, Turns, json_text, settle
from siftune.curation.ingest.source_files import normal_split

_STANDARD = frozenset(("user", "assistant", "system", "tool"))


class Example(NamedTuple):
    """A row that can be trained on: one row of EXAMPLES, but for its id and the name of its source."""

    split: str | None
    turns: Turns
    meta: str


@dataclass(frozen=True)
class Reading:
    """How the rows of a file are read. `used`: columns that are in the messages, so that `meta` need not hold them."""

    form: Format
    columns: Columns
    used: frozenset[str]
    partly: tuple[str, ...]

    @classmethod
    def of(cls, form: Format, columns: Columns) -> Reading:
        """A format with its mapping of roles to columns."""
        used = frozenset(column for role, column in columns.items() if role not in form.meta)
        return cls(form, columns, used, tuple(columns[role] for role in form.meta_lists if role in columns))


def example(row: Any, reading: Reading | None, *, split: str | None, own_split: bool) -> Example | Fault:
    """The example that a row is, or why it is none.

    Args:
        row: A JSON value; a `Fault` when the reader could not parse it.
        reading: None when no row of the file has columns.
        split: The split of the file.
        own_split: Whether the row's own column `split` goes before that.
    """
    if row.__class__ is not dict:
        return row if isinstance(row, Fault) else Fault("not_an_object", f"a JSON {type(row).__name__}")
    if reading is None:
        return Fault("missing_prompt", "no columns that can be read")
    try:
        return _example(row, reading, split, own_split)
    except RecursionError:
        return Fault("wrong_type", "nested too deeply")


def _example(row: Row, reading: Reading, split: str | None, own_split: bool) -> Example | Fault:  # noqa: FBT001
    turns = reading.form.convert(row, reading.columns)
    settled = turns if isinstance(turns, Fault) else settle(turns)
    if isinstance(settled, Fault):
        return _damage(row) or settled
    turns, repairs = settled
    rest = {column: value for column, value in row.items() if column not in reading.used}
    for column in reading.partly:
        if isinstance(row.get(column), (list, dict)):
            rest[column] = row[column]
    own = rest.get("split")
    if own_split and isinstance(own, str) and own.strip():
        split = normal_split(own)
        if split == own:
            del rest["split"]
    if any(turn.fields for turn in turns):
        rest["_turns"] = {str(place): turn.fields for place, turn in enumerate(turns) if turn.fields}
    if repairs:
        rest["_repairs"] = repairs
    meta = json_text(rest) if rest else "{}"
    if _suspicious(turns, meta) and (fault := _damage(row)):
        return fault
    return Example(split, turns, meta)


def _suspicious(turns: Turns, meta: str) -> bool:
    """A cheap look at what will be written; only where it finds something, every cell of the row is looked at."""
    if len(meta) * 4 >= MAX_CELL or "\\u0000" in meta or not _encodable(meta):
        return True
    for turn in turns:
        content = turn.content
        if "\0" in content or len(content) * 4 >= MAX_CELL or not _encodable(content):
            return True
        if turn.role not in _STANDARD and ("\0" in turn.role or not _encodable(turn.role)):
            return True
    return False


def _encodable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _damage(row: Row) -> Fault | None:
    """The first cell of a row that no example may hold, keys included."""
    for text in _texts(row):
        if "\0" in text:
            return Fault("nul_byte", "a NUL character")
        if not _encodable(text):
            return Fault("lone_surrogate", "half of a surrogate pair")
        if len(text) * 4 >= MAX_CELL and len(text.encode()) >= MAX_CELL:
            return Fault("oversized_cell", f"a cell of {len(text.encode()):,} bytes")
    return None


def _texts(value: Any) -> Iterator[str]:
    """Every text within a value, without recursion: the nesting is the user's."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            waiting.extend(key for key in value if isinstance(key, str))
            waiting.extend(value.values())
        elif isinstance(value, (list, tuple)):
            waiting.extend(value)
