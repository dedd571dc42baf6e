"""The cells of a row as text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from siftune.curation.formats.faults import Fault

#: One row as it was parsed: column to value.
Row = dict[str, Any]
#: Role (as a format names it) to column.
Columns = Mapping[str, str]

_JSON_TYPES = {"dict": "an object", "list": "a list", "tuple": "a list"}


def cell_text(value: Any) -> str | Fault | None:
    """A cell as text: None for null, the JSON text of a number or a boolean; lists and objects are a fault."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, (bool, int, float)):
        return json_text(value)
    if isinstance(value, (list, tuple, dict, bytes)):
        name = type(value).__name__
        return Fault("wrong_type", f"{_JSON_TYPES.get(name, name)} where a text should be")
    return str(value)


def joined_cells(row: Row, columns: Columns, roles: Sequence[str]) -> str | Fault | None:
    """The cells of `roles` that are present and not blank, joined by blank lines; None when there is none."""
    texts = []
    for role in roles:
        if role not in columns:
            continue
        text = cell_text(row.get(columns[role]))
        if isinstance(text, Fault):
            return Fault(text.reason, f"{columns[role]}: {text.detail}")
        if text is not None and text.strip() and text.strip() != "<noinput>":
            texts.append(text)
    return "\n\n".join(texts) if texts else None


def json_text(value: Any) -> str:
    """JSON of any cell, keys sorted, so that equal values give equal texts. Values that JSON cannot hold become text.

    Raises:
        RecursionError: more than 254 levels of nesting (orjson's limit), whatever Python's own limit is.
    """
    try:
        return orjson.dumps(value, default=_as_text, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS).decode()
    except orjson.JSONEncodeError as error:
        if "ecursion" in str(error):
            raise RecursionError("nested too deeply") from None
        # Python's own encoder takes lone surrogates and integers of more than 64 bits.
        return json.dumps(value, default=_as_text, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _as_text(value: Any) -> Any:
    return value.hex() if isinstance(value, (bytes, bytearray)) else str(value)
