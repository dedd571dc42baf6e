"""JSON files as they are found: lines, an array, an object around an array, truncated or broken.

Everything that can be parsed is read; what cannot be parsed is a `Fault` at its position.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import orjson

from siftune.curation.errors import UserError
from siftune.curation.formats.faults import Fault
from siftune.curation.ingest.decompression import Warn

TRUNCATED = "the file is truncated: its last row is incomplete and was quarantined"
#: A list of objects under one of these names is part of a row; under any other name it is the list of rows.
_LISTS_OF_A_ROW = {
    "messages", "conversations", "conversation", "dialogue", "dialog", "chat", "turns", "history", "items",
    "chosen", "rejected", "prompt", "completion", "tools", "functions", "choices",
}  # fmt: skip
_SAMPLED_OBJECTS = 200
_RAW_CHARACTERS = 2000  # of a faulty row that are kept
_GAP = re.compile(r"[\s,]*")
_NEXT_OBJECT = re.compile(r",\s*(?=\{)")
_WRAPPED_ARRAY = re.compile(r'\{\s*"[^"]*"\s*:\s*\[')
_ESCAPED_BYTES = re.compile("[\udc80-\udcff]")

_Span = tuple[int, int]
_Keys = frozenset[str]


def read_lines(pieces: Iterator[bytes], *, warn: Warn) -> Iterator[Any]:
    """The values of JSON Lines, split at the newline byte only (texts may hold U+2028); blank lines are no rows."""
    tail: list[bytes] = []
    for piece in pieces:
        first, *others = piece.split(b"\n")
        tail.append(first)
        if others:
            complete = (b"".join(tail), *others[:-1])
            tail = [others[-1]]
            yield from (parse_line(line) for line in complete if line and not line.isspace())
    last = b"".join(tail)
    if last and not last.isspace():
        value = parse_line(last)
        if isinstance(value, Fault) and _is_truncated_object(last):
            warn(TRUNCATED)
            value = Fault("truncated", value.detail, value.raw)
        yield value


def _is_truncated_object(line: bytes) -> bool:
    """Whether a line that is not valid JSON is the beginning of an object."""
    text = line.decode(errors="ignore").strip()
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return text.startswith("{") and (error.pos >= len(text) or not text.endswith("}"))
    except (ValueError, RecursionError):
        return False
    return False


def parse_line(line: bytes) -> Any:
    """The value of a line of JSON, or the `Fault` that says why there is none."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        message = str(error)
    if b"\0" in line:
        return Fault("nul_byte", "a NUL byte", line.decode(errors="replace"))
    if "depth limit" in message:
        return Fault("bad_json", "nested too deeply", line.decode(errors="replace"))
    # Python's parser takes NaN and lone surrogates, which orjson refuses.
    try:
        return json.loads(line.decode())
    except UnicodeDecodeError as error:
        return Fault("bad_encoding", f"byte {error.start}: {error.reason}", line.decode(errors="replace"))
    except (ValueError, RecursionError):
        return Fault("bad_json", message, line.decode(errors="replace"))


def read_document(pieces: Iterator[bytes], path: Path, *, warn: Warn) -> Iterator[Any]:
    """The rows of a .json file: an array, an object that holds one, a single object, or JSON Lines under that name.

    Args:
        pieces: The content of the file.
        path: The file, for messages.
        warn: Is called with what the user should know of the file.

    Raises:
        UserError: the file is none of these.
    """
    head: list[bytes] = []
    for piece in pieces:
        head.append(piece)
        if piece.count(b"\n") > 1 or b"".join(head[:2]).lstrip()[:1] == b"[":
            break
    beginning = b"".join(head)
    if _looks_like_lines(beginning):
        yield from read_lines(chain([beginning], pieces), warn=warn)
        return
    data = b"".join([beginning, *pieces])
    if not data.strip():
        return
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        yield from _recovered_rows(data, path, warn)
        return
    yield from value if isinstance(value, list) else _rows_of_object(value, path, warn)


def begins_indented_array(beginning: bytes) -> bool:
    """Whether a file begins with a bracket on a line of its own: an indented array, whatever its name says."""
    return beginning.lstrip().partition(b"\n")[0].strip() == b"[" and b"\n" in beginning


def _looks_like_lines(beginning: bytes) -> bool:
    """Whether a second line opens an object at its first character; an indented document never does."""
    lines = [line for line in beginning.lstrip().split(b"\n", 20) if line.strip()]
    return len(lines) > 1 and lines[0].startswith(b"{") and lines[1].startswith(b"{")


def _rows_of_object(value: Any, path: Path, warn: Warn) -> Iterator[Any]:
    if not isinstance(value, dict):
        raise UserError(
            f"{path} holds one JSON {type(value).__name__}. Accepted: a list of rows, an object with such a list, "
            "or one row as an object."
        )
    tables = {
        key: rows
        for key, rows in value.items()
        if isinstance(rows, list) and rows and isinstance(rows[0], (dict, list)) and key.lower() not in _LISTS_OF_A_ROW
    }
    if not tables:
        yield value
    elif len(tables) == 1:
        (key, rows), *_ = tables.items()
        warn(f"the rows are the list under {key!r}")
        yield from rows
    elif len(tables) == len(value):
        warn(f"the rows are the lists under {', '.join(map(repr, tables))}; these names are kept as their splits")
        for key, rows in tables.items():
            yield from (_with_split(row, key) for row in rows)
    else:
        raise UserError(
            f"{path} is an object with several lists ({', '.join(tables)}) and other values, so it is not clear which "
            "list holds the rows. Keep only that list."
        )


def _with_split(row: Any, split: str) -> Any:
    if isinstance(row, list):
        row = {str(position): value for position, value in enumerate(row)}
    return {"split": split, **row} if isinstance(row, dict) else row


def _recovered_rows(data: bytes, path: Path, warn: Warn) -> Iterator[Any]:
    """The rows of a document that is not valid JSON as a whole, parsed one by one."""
    try:
        text, is_utf8 = data.decode(), True
    except UnicodeDecodeError:
        text, is_utf8 = data.decode(errors="surrogateescape"), False
    body = text.lstrip()
    wrapper = _WRAPPED_ARRAY.match(body)
    if body[:1] == "[":
        start, closing = len(text) - len(body) + 1, "]"
    elif wrapper and "\n{" not in body:
        start, closing = len(text) - len(body) + wrapper.end(), "}"
    elif body[:1] == "{":
        start, closing = len(text) - len(body), "}"
    else:
        raise UserError(f"{path} is not JSON: it begins with {body[:30]!r}. Accepted: an array of objects.")
    for value, span in _scan_rows(text, start, closing, warn):
        undecodable = not is_utf8 and _ESCAPED_BYTES.search(text, *span)
        yield Fault("bad_encoding", "not UTF-8", _raw(text, span)) if undecodable else value


def _scan_rows(text: str, start: int, closing: str, warn: Warn) -> Iterator[tuple[Any, _Span]]:
    """Each row from `start` on, or the `Fault` in its position, with its span in `text`."""
    decoder, row_keys = json.JSONDecoder(), set[_Keys]()
    while True:
        gap = _GAP.match(text, start)
        start = gap.end() if gap else start
        if start >= len(text):
            if closing == "]":
                warn("the file ends without its closing bracket; all rows before that were read")
            return
        if text[start] in "]}":
            return
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            detail = str(error)[:200]
            resumed = _next_row(text, start, row_keys, decoder)
            if resumed is None:
                stripped = text.rstrip()
                is_truncated = not stripped.endswith(closing) or getattr(error, "pos", start) >= len(stripped)
                broken = "the JSON is not valid; everything after the error is quarantined as one row"
                warn(TRUNCATED if is_truncated else broken)
                span = (start, len(text))
                yield Fault("truncated" if is_truncated else "bad_json", detail, _raw(text, span)), span
                return
            span = (start, resumed)
            yield Fault("bad_json", detail, _raw(text, span)), span
            start = resumed
            continue
        if isinstance(value, dict):
            row_keys.add(frozenset(value))
        yield value, (start, end)
        start = end


def _next_row(text: str, start: int, row_keys: set[_Keys], decoder: json.JSONDecoder) -> int | None:
    """Where the next row begins after a broken one: an object with the same keys as one of the rows before.

    Where no row came before, rows are the objects whose keys cover most of the text: rows cover more of it than what
    is inside of them.
    """
    if not row_keys:
        covered: Counter[_Keys] = Counter()
        for begin, end, keys in islice(_objects(text, start, decoder), _SAMPLED_OBJECTS):
            covered[keys] += end - begin
        row_keys = {keys for keys, _ in covered.most_common(1)}
    return next((begin for begin, _, keys in _objects(text, start, decoder) if keys in row_keys), None)


def _objects(text: str, start: int, decoder: json.JSONDecoder) -> Iterator[tuple[int, int, _Keys]]:
    """Every object after a comma: where it begins and ends, and its keys."""
    for comma in _NEXT_OBJECT.finditer(text, start):
        try:
            value, end = decoder.raw_decode(text, comma.end())
        except (ValueError, RecursionError):
            continue
        yield comma.end(), end, frozenset(value)


def _raw(text: str, span: _Span) -> str:
    begin, end = span
    return text[begin : min(end, begin + _RAW_CHARACTERS)].encode(errors="replace").decode()
