"""Where the rows are in a parsed JSON value: under the key of a wrapper, column by column as pandas writes them, or it.

The elements decide, not the name of the key: rows have columns for a prompt and an answer of their own, turns have a
role and a content. An object that has columns of a row beside a list is a row and is never opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import orjson

from siftune.curation.errors import UserError
from siftune.curation.formats.detection import FORMATS, fits_a_format
from siftune.curation.formats.dialogues import CONTENT_KEYS, ROLE_KEYS
from siftune.curation.ingest.decompression import Warn
from siftune.curation.split_names import split_of

_DIALOGUE_NAMES = frozenset(
    ("messages", "conversations", "conversation", "dialogue", "dialog", "chat", "turns", "history")
)  # fmt: skip
#: Lists of objects under these names describe one row.
_NAMES_IN_A_ROW = _DIALOGUE_NAMES | {"chosen", "rejected", "prompt", "completion", "tools", "functions", "choices"}
_TURN_KEYS = (*CONTENT_KEYS, "tool_calls", "function_call")
_SPEAKER_PAIRS: tuple[set[str], ...] = ({"human", "assistant"}, {"user", "assistant"})
_PAIRS = (*_SPEAKER_PAIRS, {"input", "output"}, {"question", "answer"})
#: Columns of a row, which the description of a file beside its list of rows does not have.
_ROW_NAMES = frozenset(
    ("system", "system_prompt", "context", "passage", "input", "inputs", "instructions", "options", "choices", "text")
) | {
    name
    for row_format in FORMATS.values()
    for role in row_format.required
    for name in row_format.roles[role]
    if len(name) > 1 and name not in ("data", "items")
}  # fmt: skip
#: Names of the lists of a `split` layout: pandas', and those that web services and spreadsheets use.
_COLUMN_KEYS = ("columns", "header", "headers", "fields")
_DATA_KEYS = ("data", "rows", "values", "records")
_SAMPLED_ELEMENTS = 50
_NESTED = "lists of rows inside of rows were read row by row, each with the texts beside its list"
_MAX_DEPTH = 4  # of wrappers in wrappers


class LayoutReader:
    """Finds the rows in the values of one file; `warn` is called with the layout when it is not plain rows."""

    def __init__(self, path: Path, warn: Warn, *, positions: bool = False) -> None:
        self._path = path
        self._warn = warn
        self._positions = positions  # the recipe names columns by position, so that no list holds their names
        self._inner: dict[tuple[frozenset[str], str], bool] = {}

    def rows(self, values: Iterator[Any]) -> Iterator[Any]:
        """The rows in the values of a file, which may be one or many.

        Raises:
            UserError: it is not clear where the rows are.
        """
        head = [value for _, value in zip(range(2), values, strict=False)]
        if len(head) == 1:
            yield from self._rows_of_document(head[0])
            return
        yield from self._rows_of_elements(chain(head, values), head[:1])

    def _rows_of_elements(self, values: Iterable[Any], head: Sequence[Any]) -> Iterator[Any]:
        """The rows of several values: each a row, or the first a list of names and the others lists of cells."""
        first = head[0] if head else None
        if self._positions or not isinstance(first, list) or not _are_names(first):
            for value in values:
                yield from self._rows_of_element(value)
            return
        self._warn("the first list holds the names of the columns")
        for value in islice(values, 1, None):
            is_row = isinstance(value, list) and len(value) == len(first)
            yield dict(zip(first, value, strict=True)) if is_row else value

    def _rows_of_document(self, document: Any) -> Iterator[Any]:
        document = _decoded(document)
        if isinstance(document, dict):
            yield from self._rows_of_object(document, depth=0)
        elif isinstance(document, list) and _is_dialogue(document):
            yield _dialogue_row(document)
        elif not isinstance(document, list):
            yield document
        elif len(document) == 1 and isinstance(document[0], dict):
            yield from self._rows_of_object(document[0], depth=0)
        else:
            yield from self._rows_of_elements(document, document[:1])

    def _rows_of_element(self, value: Any) -> Iterator[Any]:
        """The rows of one value of several: a row, a dialogue, or a list or an object of rows that fit a format."""
        value = _decoded(value)
        if isinstance(value, dict):
            inner = next((name for name, cell in value.items() if cell.__class__ is dict), None)
            if inner is not None and self._is_row_inside(value, inner):
                value = {**{name: cell for name, cell in value.items() if name != inner}, **value[inner]}
        if value.__class__ is dict and not any(cell.__class__ is list for cell in value.values()):
            yield value
        elif isinstance(value, dict):
            tables = {key: cell for key, cell in value.items() if _are_rows(cell) or _are_dialogues(cell)}
            key, table = next(iter(tables.items()), ("", []))
            is_dialogue = key.lower() in _DIALOGUE_NAMES and _are_pairs(table, _PAIRS)
            if len(tables) == 1 and not is_dialogue and not _has_row_columns(value, tables):
                yield from self._rows_under(key, table, value)
            elif nested := _nested_rows(value, depth=1):
                self._warn(_NESTED)
                yield from nested
            else:
                yield value
        elif isinstance(value, list) and _is_dialogue(value):
            yield _dialogue_row(value)
        elif _are_rows(value) or _are_dialogues(value):
            self._warn("lists of rows were read row by row")
            yield from map(_row_of_table, value)
        else:
            yield value

    def _is_row_inside(self, value: Mapping[str, Any], name: str) -> bool:
        """Whether the object under `name` is the row, and what is beside it is no part of a row."""
        shape = (frozenset(value), name)
        if shape not in self._inner:
            is_only = sum(cell.__class__ is dict for cell in value.values()) == 1
            inside = is_only and not _is_turn(value[name]) and _fits([value[name]])
            self._inner[shape] = inside and not _has_row_columns(value, {name: None}) and not _fits([value])
            if self._inner[shape]:
                self._warn(f"the rows are the objects under {name!r}, each with what is beside it")
        return self._inner[shape]

    def _rows_of_object(self, value: dict[str, Any], *, depth: int) -> Iterator[Any]:
        """The rows of an object that is all that a file holds."""
        # 1. A table for each split.
        if _are_split_tables(value):
            self._warn(f"the rows are under {_listed(value)}; these names are kept as their splits")
            for split, part in value.items():
                rows = (
                    self._rows_of_object(part, depth=depth + 1) if isinstance(part, dict) else map(_row_of_table, part)
                )
                yield from (_with_split(row, split) for row in rows)
            return
        # 2. The layouts of pandas.
        layout, rows_of_layout = _pandas_rows(value, self._path)
        if layout:
            self._warn(f"the layout of the file is {layout}; it was read row by row")
            yield from map(_row_of_table, rows_of_layout)
            return
        # 3. Lists of rows, unless the object has columns of a row beside them; or rows inside of the rows of a list.
        tables = {key: cell for key, cell in value.items() if _is_table(key, cell)}
        fitting = {key: table for key, table in tables.items() if _are_rows(table) or _are_dialogues(table)}
        if not fitting and (nested := _nested_rows(value)):
            self._warn(_NESTED)
            yield from nested
            return
        tables = fitting or tables
        if tables and not _has_row_columns(value, tables):
            yield from self._rows_of_tables(tables, value)
            return
        # 4. Dialogues by their names.
        if len(value) > 1 and all(map(_is_dialogue_list, value.values())) and not _names_of_row(value):
            self._warn("the file holds a dialogue under each name")
            yield from map(_dialogue_row, value.values())
            return
        # 5. A wrapper in a wrapper.
        inner = [cell for cell in value.values() if isinstance(cell, dict)]
        if (
            len(inner) == 1
            and depth < _MAX_DEPTH
            and not _has_row_columns(value, {})
            and _holds_rows(inner[0], self._path)
        ):
            yield from self._rows_of_object(inner[0], depth=depth + 1)
            return
        yield value

    def _rows_of_tables(self, tables: Mapping[str, list[Any]], value: Mapping[str, Any]) -> Iterator[Any]:
        if len(tables) == 1:
            ((key, table),) = tables.items()
            yield from self._rows_under(key, table, value)
        elif len(tables) == len(value) or _are_splits(tables):
            self._warn(f"the rows are the lists under {_listed(tables)}; these names are kept as their splits")
            for key, table in tables.items():
                yield from (_with_split(_row_of_table(row), key) for row in table)
        else:
            raise UserError(
                f"{self._path} is an object with several lists ({', '.join(tables)}) and other values, so it is not "
                "clear which list holds the rows. Keep only that list."
            )

    def _rows_under(self, key: str, table: list[Any], value: Mapping[str, Any]) -> Iterator[Any]:
        beside = [name for name in value if name != key]
        self._warn(f"the rows are the list under {key!r}" + (f"; not read: {_listed(beside)}" if beside else ""))
        rows = map(_row_of_table, table)
        yield from (_with_split(row, key) for row in rows) if split_of(key) else rows


def _pandas_rows(value: Mapping[str, Any], path: Path) -> tuple[str, list[Any]]:
    """The name of the layout and the rows of an object as `DataFrame.to_json` writes it; no name for any other object.

    Raises:
        UserError: columns have different lengths, or it is not clear which names are the columns.
    """
    names = next((cell for name in _COLUMN_KEYS if isinstance(cell := value.get(name), list)), None)
    data = next((cell for name in _DATA_KEYS if isinstance(cell := value.get(name), list)), None)
    if names and data and all(map(_is_text, names)) and all(isinstance(row, list) for row in data):
        if all(len(row) == len(names) for row in data):
            return "`split` (columns, index and data)", [dict(zip(map(str, names), row, strict=True)) for row in data]
        raise UserError(f"{path} has the layout `split`, but not every row of its data has {len(names)} cells.")
    cells = list(value.values())
    are_lists = bool(cells) and all(isinstance(cell, list) and cell for cell in cells)
    if (
        are_lists
        and not _is_row_of_lists(value)
        and (len(cells) > 1 or _fits([{name: x} for name in value for x in value[name]]))
    ):
        lengths = {len(cell) for cell in cells}
        if len(lengths) == 1:
            return "by column (lists)", [dict(zip(value, row, strict=True)) for row in zip(*cells, strict=True)]
        if all(isinstance(item, (str, int, float, type(None))) for cell in cells for item in cell):
            sizes = ", ".join(f"{name} {len(cell)}" for name, cell in value.items())
            raise UserError(f"{path} is written by column, and its columns have different lengths: {sizes}.")
    if cells and all(isinstance(cell, dict) and cell and not _is_turn(cell) for cell in cells):
        return _rows_of_objects(value, path)
    return "", []


def _rows_of_objects(value: Mapping[str, Mapping[str, Any]], path: Path) -> tuple[str, list[Any]]:
    by_index = list(value.values())
    index = list(by_index[0])
    is_rectangle = all(set(cell) == set(index) for cell in by_index)
    by_column = [{name: cell[key] for name, cell in value.items()} for key in index] if is_rectangle else []
    holds_cells = not any(isinstance(cell, dict) or _are_rows(cell) for row in by_index for cell in row.values())
    if holds_cells and _fits(by_index):
        return "by index (an object for each row)", by_index
    if is_rectangle and holds_cells and (_fits(by_column) or all(key.isdigit() for key in index)):
        return "by column (objects)", by_column
    if all(key.isdigit() for key in value):
        return "by index (an object for each row)", by_index
    if is_rectangle and holds_cells and len(by_index) > 1 and len(index) > 1:
        raise UserError(
            f"{path} is one object of objects, by column or by index as pandas writes them, and neither the outer "
            f"names ({_listed(value)}) nor the inner ones ({_listed(index)}) are the columns of a known format. Write "
            "it with to_json(…, orient='records', lines=True)."
        )
    return "", []


def _is_row_of_lists(value: Mapping[str, list[Any]]) -> bool:
    """Whether an object of lists is one row (dialogues, lists of texts as turns) or holds tables, not columns."""
    return any(
        _is_dialogue(cell)
        or isinstance(cell[0], dict)
        or (name.lower() in _DIALOGUE_NAMES and all(isinstance(item, str) for item in cell))
        for name, cell in value.items()
    )


def _is_table(key: str, cell: Any) -> bool:
    """Whether a cell of the only object of a file is a list of rows, and not the dialogue or the tools of one row."""
    if not isinstance(cell, list) or not cell or not isinstance(cell[0], (dict, list)) or _is_dialogue(cell):
        return False
    if key.lower() not in _NAMES_IN_A_ROW:
        return True
    return _are_dialogues(cell) or (_are_rows(cell) and not _are_pairs(cell, _SPEAKER_PAIRS))


def _holds_rows(value: Mapping[str, Any], path: Path) -> bool:
    if _are_split_tables(value) or _pandas_rows(value, path)[0]:
        return True
    return any(
        (_is_table(key, cell) and (_are_rows(cell) or _are_dialogues(cell)))
        or (isinstance(cell, dict) and _holds_rows(cell, path))
        for key, cell in value.items()
    )


def _has_row_columns(value: Mapping[str, Any], tables: Mapping[str, Any]) -> bool:
    return any(key.lower() in _ROW_NAMES and cell for key, cell in value.items() if key not in tables)


def _are_split_tables(value: Mapping[str, Any]) -> bool:
    """Whether an object holds the rows of each split under its name."""
    return (
        bool(value)
        and all(isinstance(cell, (dict, list)) for cell in value.values())
        and any(value.values())
        and not any(
            isinstance(item, (str, int, float)) for cell in value.values() for item in cell if cell.__class__ is list
        )
        and _are_splits(value)
    )


def _are_splits(names: Mapping[str, Any]) -> bool:
    return all(split_of(name) for name in names)


def _with_split(row: Any, split: str) -> Any:
    if isinstance(row, list):
        row = {str(position): value for position, value in enumerate(row)}
    return {"split": split, **row} if isinstance(row, dict) else row


def _row_of_table(row: Any) -> Any:
    """A row of a list: a list of turns becomes a dialogue, an entry of the hub's viewer the row that it holds."""
    row = _decoded(row)
    if isinstance(row, list) and _is_dialogue(row):
        return _dialogue_row(row)
    if isinstance(row, dict) and "row_idx" in row and isinstance(row.get("row"), dict):
        return row["row"]
    return row


def _decoded(value: Any) -> Any:
    """The object or list that a text of JSON holds, for rows that were encoded twice."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            return value
    return value


def _dialogue_row(turns: list[Any]) -> dict[str, Any]:
    return {"conversations" if "from" in turns[0] else "messages": turns}


def _is_turn(item: Any) -> bool:
    return isinstance(item, dict) and any(
        isinstance(item.get(role), str) and any(key in item for key in _TURN_KEYS) for role in ROLE_KEYS
    )


def _is_dialogue(value: Sequence[Any]) -> bool:
    """Whether all elements are turns, and not rows that happen to have a column `role`."""
    return bool(value) and all(map(_is_turn, value)) and not _fits(value)


def _are_dialogues(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, list) and _is_dialogue(item) for item in value[:_SAMPLED_ELEMENTS])
    )


def _are_rows(value: Any) -> bool:
    """Whether the elements of a list are objects with the columns of a known format."""
    if not isinstance(value, list) or not value or isinstance(value[0], (int, float)):
        return False
    sample = [_row_of_table(item) for item in value[:_SAMPLED_ELEMENTS]]
    return all(isinstance(item, dict) for item in sample) and not all(map(_is_turn, value)) and _fits(sample)


def _are_pairs(table: Sequence[Any], pairs: Sequence[set[str]]) -> bool:
    return all(isinstance(item, dict) and set(item) in pairs for item in table)


def _nested_rows(value: Mapping[str, Any], *, depth: int = 0) -> list[Any]:
    """The rows in lists of rows inside of objects, each with the texts of these objects; none where there are none.

    So SQuAD is written: articles hold paragraphs with a context, and these hold questions. At depth 0, texts describe
    the file.
    """
    lists = [name for name, cell in value.items() if isinstance(cell, list) and cell and _are_objects(cell)]
    if len(lists) != 1 or depth > _MAX_DEPTH or _fits([value]):
        return []
    above = {name: cell for name, cell in value.items() if isinstance(cell, str)} if depth else {}
    rows: list[Any] = []
    for item in value[lists[0]]:
        inner = [item] if depth and _fits([item]) else _nested_rows(item, depth=depth + 1)
        if not inner:
            return []
        rows += [{**above, **row} for row in inner]
    return rows


def _are_objects(value: Sequence[Any]) -> bool:
    return all(isinstance(item, dict) and not _is_turn(item) for item in value)


def _is_dialogue_list(value: Any) -> bool:
    return isinstance(value, list) and _is_dialogue(value)


def _names_of_row(value: Mapping[str, Any]) -> bool:
    return any(name.lower() in _NAMES_IN_A_ROW | _ROW_NAMES for name in value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_names(value: Sequence[Any]) -> bool:
    """Whether a list holds the names of columns of a known format, and nothing else."""
    return len(value) > 1 and all(map(_is_text, value)) and all(len(name) < 40 for name in value) and columns_fit(value)


def _fits(rows: Sequence[Any]) -> bool:
    """Whether a format fits the columns of these rows."""
    objects = [row for row in rows[:_SAMPLED_ELEMENTS] if isinstance(row, dict)]
    return bool(objects) and fits_a_format(objects, list(dict.fromkeys(chain.from_iterable(objects))))


def _listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    first = [repr(name) for name in names][:6]
    return ", ".join(first) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def columns_fit(names: Sequence[str]) -> bool:
    """Whether columns of these names are those of a known format."""
    return _fits([dict.fromkeys(names, "text")])


def is_usual_name(name: str) -> bool:
    """Whether a column of this name is usual in a row."""
    return name.strip().strip('"').lower() in _ROW_NAMES
