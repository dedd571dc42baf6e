"""The cells of a row as text."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from siftune.curation.formats.faults import Fault

#: One row as it was parsed: column to value.
Row = dict[str, Any]
#: Role (as a format names it) to column.
Columns = Mapping[str, str]

#: What tables write into an empty cell, in lower case and without brackets and full stops.
PLACEHOLDERS = frozenset(
    ("nan", "none", "null", "n/a", "#n/a", "nil", "noinput", "no input", "no_input", "not applicable",
     "n.a", "no input needed", "no input required", "no input provided", "no input necessary", "no additional input")
)  # fmt: skip
_LONGEST_PLACEHOLDER = 24
_MARKED_PLACEHOLDERS = ("<na>", "<none>")
#: Characters. Whether a shorter cell stands in another one by chance cannot be known.
_SHORTEST_REPEATED = 40
#: What NumPy writes around a list of objects and between its objects.
_ARRAY = re.compile(r"array\(\s*\[(.*)\]\s*(?:,\s*dtype=\w+\s*)?\)\Z", re.DOTALL)
_INNER_ARRAY = re.compile(r"\barray\((\[[^\]]*\])(?:,\s*dtype=\w+)?\)")
_NO_COMMA = re.compile(r"\}\s*\n\s*\{")
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


def is_null(value: Any) -> bool:
    """Whether a cell holds nothing: null, or the NaN that pandas writes in its place."""
    return value is None or (value.__class__ is float and value != value)


def is_filled(value: Any) -> bool:
    """Whether a cell holds anything: no null, no empty text and no empty list."""
    return not is_null(value) and value != "" and value != []


def is_blank(text: str) -> bool:
    """Whether an input cell says nothing: white space, or what tables write into an empty cell (`nan`, `N/A`)."""
    if len(text) > _LONGEST_PLACEHOLDER:
        return not text.strip()
    bare = text.strip().lower()
    return not bare or bare in _MARKED_PLACEHOLDERS or bare.strip("<>()[]. ") in PLACEHOLDERS


def joined_cells(row: Row, columns: Columns, roles: Sequence[str]) -> str | Fault | None:
    """The cells of `roles` that are present and not blank, joined by blank lines; None when there is none.

    A cell may be blocks of text (see `block_text`). A context that stands word for word in another cell is left out.
    """
    texts: dict[str, str] = {}
    for role in roles:
        if role not in columns:
            continue
        value = row.get(columns[role])
        text = block_text(value) if _are_blocks(value, role) else cell_text(value)
        if isinstance(text, Fault):
            return Fault(text.reason, f"{columns[role]}: {text.detail}")
        if text is not None and not is_blank(text):
            texts[role] = text
    if len(texts) > 1 and len(context := texts.get("context", "")) >= _SHORTEST_REPEATED:
        rest = {role: text for role, text in texts.items() if role != "context"}
        texts = rest if any(context in text for text in rest.values()) else texts
    return "\n\n".join(texts.values()) if texts else None


def _are_blocks(value: Any, role: str) -> bool:
    """Whether a cell is read block by block. Only a system prompt or a context may be a list of plain texts."""
    if not isinstance(value, (list, dict)) or not value:
        return False
    return role in ("system", "context") or isinstance(value, dict) or all(isinstance(item, dict) for item in value)


def block_text(value: Any) -> str | Fault:
    """The text of blocks: texts, or objects as OpenAI, Anthropic ({"type": "text", "text": …}) or Gemini
    ({"parts": […]}) write them, alone or in a list. Anything else than text among them is a fault."""
    if isinstance(value, dict):
        if isinstance(value.get("parts"), (list, str, dict)):
            return block_text(value["parts"])
        value = [value]
    if isinstance(value, str):
        return value
    texts = []
    for part in value:
        text = part.get("text") if isinstance(part, dict) else part
        if isinstance(text, dict):  # {"type": "text", "text": {"value": …}}, as OpenAI's threads are exported
            text = text.get("value")
        if not isinstance(text, str):
            part_type = part.get("type") or _kind_of_block(part) if isinstance(part, dict) else type(part).__name__
            return Fault("wrong_type", f"a content part that is not text ({part_type})")
        texts.append(text)
    return "\n".join(texts)


def _kind_of_block(part: Mapping[str, Any]) -> str:
    """What a block without a `type` holds: the name of its first key that is not null."""
    return next((str(key) for key, value in part.items() if value is not None), "object")


def without_nulls(value: Any) -> Any:
    """A value without the keys whose value is null, at any depth.

    Arrow gives all objects of a column the keys of all others and fills them with null; JSON Lines do not. What is
    read is the same from both.
    """
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [without_nulls(item) for item in value]
    return value


def decoded(text: str) -> Any:
    """The value of a text of JSON, of a Python literal, or of the text that NumPy makes of a list; None for others."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    literal = _ARRAY.sub(r"[\1]", text.strip())
    candidates = (literal, _NO_COMMA.sub("}, {", literal), _INNER_ARRAY.sub(r"\1", literal))
    return next((value for candidate in candidates if (value := python_literal(candidate)) is not None), None)


def python_literal(text: str) -> Any:
    """The value of a Python literal, as `repr` writes rows; None for any other text."""
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None


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
