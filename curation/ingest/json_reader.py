"""JSON files as they are found: lines, an array, an object, indented objects, truncated or broken.

The content decides which of these a file is, not its name. Everything that can be parsed is read; what cannot be
parsed is a `Fault` at its position. Where the rows are in what was parsed: see `json_layouts`.
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
from siftune.curation.formats.cells import python_literal
from siftune.curation.formats.faults import MAX_CELL, MAX_ROW, Fault
from siftune.curation.ingest.decompression import Warn
from siftune.curation.ingest.lines import LongLine, split_lines

TRUNCATED = "the file is truncated: its last row is incomplete and was quarantined"
#: Bytes of a value that is read as a whole, which takes up to four times as much memory.
MAX_DOCUMENT = 4_000_000_000
_SAMPLED_OBJECTS = 200
_DEEPEST = 500  # levels that Python's parser takes in every version, however deep the call is
_RAW_CHARACTERS = 2000  # of a faulty row that are kept
_GAP = re.compile(r"[\s,]*")
_NEXT_OBJECT = re.compile(r",\s*(?=\{)")
#: A text, which may hold brackets; a bracket (1); a quote that no other one closes (2).
_TEXT_OR_BRACKET = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|([][{}])|(")', re.DOTALL)
_WRAPPED_ARRAY = re.compile(r'\{\s*"[^"]*"\s*:\s*\[')
_ESCAPED_BYTES = re.compile("[\udc80-\udcff]")

_PARSER = json.JSONDecoder()

_Span = tuple[int, int]
_Keys = frozenset[str]


def read_values(
    pieces: Iterator[bytes], path: Path, *, is_lines: bool, warn: Warn, max_row: int = MAX_ROW
) -> Iterator[Any]:
    """The values of a file: those of its lines, the elements of its array, or its only value.

    Args:
        pieces: The content of the file.
        path: The file, for messages.
        is_lines: Whether the file is named as JSON Lines, which decides where the content does not.
        warn: Is called with what the user should know of the file.
        max_row: Bytes from which on a line is no row.

    Raises:
        UserError: the file is not JSON, or too large to be read as one value.
    """
    # 1. Read until a second line with text begins, or the first one is too long for a row.
    beginning, second = _beginning(pieces, path, max_row if is_lines else None)
    mark = beginning.lstrip()[:1]
    # 2. Each line is a value, or the file as a whole is.
    if not second:
        is_document = mark == b"[" or not is_lines
    elif mark == b"[":
        first = _first_line(beginning)
        is_document = isinstance(parse_line(first), Fault) and (not is_lines or _is_unfinished(first))
    elif is_lines:
        is_document = False
    else:
        is_document = second != b"{" or mark != b"{"
        is_document = is_document and isinstance(parse_line(_first_line(beginning)), Fault)
    content = chain([beginning], pieces)
    del beginning
    yield from (
        read_document(content, path, warn=warn) if is_document else read_lines(content, warn=warn, max_row=max_row)
    )


def _beginning(pieces: Iterator[bytes], path: Path, max_row: int | None) -> tuple[bytes, bytes]:
    """What comes before the second line with text, and more; and the first byte of that line.

    There is no second line where the file ends before, or where the first one is longer than `max_row` and no array.
    """
    parts: list[bytes] = []
    size, mark, is_ended, second = 0, b"", False, b""
    for piece in pieces:
        rest = piece
        if not mark:
            rest = rest.lstrip()
            mark = rest[:1]
        parts.append(piece)
        size += len(piece)
        if mark and not is_ended:
            _, line_end, rest = rest.partition(b"\n")
            is_ended = bool(line_end)
        if is_ended:
            second = second or rest.lstrip(b"\r\n")[:1]  # a blank where that line is indented
            if rest and not rest.isspace():
                return b"".join(parts), second
        if max_row is not None and size >= max_row and mark != b"[":
            break
        _require_fitting(size, path)
    return b"".join(parts), b""


def _first_line(beginning: bytes) -> bytes:
    return beginning.lstrip().partition(b"\n")[0].strip()


def _require_fitting(size: int, path: Path) -> None:
    if size > MAX_DOCUMENT:
        raise UserError(
            f"{path} is one JSON value of more than {MAX_DOCUMENT:,} bytes, which has to be read into memory as a "
            "whole. Write its rows as JSON Lines, one in each line."
        )


def read_lines(pieces: Iterator[bytes], *, warn: Warn, max_row: int = MAX_ROW) -> Iterator[Any]:
    """The values of JSON Lines, split at the newline byte only (texts may hold U+2028); blank lines are no rows.

    A line may hold several objects, and an object may go on over several lines.
    """
    salvage = _LineSalvage(warn)
    for line in split_lines(pieces, limit=max_row):
        if isinstance(line, LongLine):
            yield from salvage.faults()
            yield line.fault()
        elif not line.isspace():
            value = parse_line(line)
            if value.__class__ is dict and not salvage.unfinished:
                yield value
                continue
            bare = line.removesuffix(b"\n")
            value = parse_line(bare) if isinstance(value, Fault) else value
            yield from salvage.values(bare, value, is_last=not line.endswith(b"\n"))
    yield from salvage.faults(at_end=True)


class _LineSalvage:
    """Values of lines that are no objects by themselves: several objects on one line, one object over several lines."""

    def __init__(self, warn: Warn) -> None:
        self.unfinished: list[bytes] = []  # lines of an object that did not end yet
        self._size = self._indent = 0  # of these lines, of the first of them
        self._brackets = _OpenBrackets()  # of these lines
        self._spans_lines = False  # whether an object over several lines was read
        self._warn = warn

    def values(self, line: bytes, value: Any, *, is_last: bool = False) -> Iterator[Any]:
        """The values that end in this line.

        Args:
            line: The line.
            value: What it holds by itself.
            is_last: Whether the file ends in it, without a newline.
        """
        if self.unfinished:
            indent = self._indent
            begins_object = line[indent : indent + 1] == b"{" and _indent(line) == indent
            if not begins_object and self._size < MAX_CELL:
                self._keep(line)
                is_end = _indent(line) <= indent and line.rstrip()[-1:] in (b"}", b",", b"]", b"{")
                if is_end and self._brackets.are_closed:
                    yield from self._objects()
                return
            yield from self.faults()
        if not isinstance(value, Fault):
            yield value
            return
        objects, rest = _objects_of(line)
        yield from objects
        if rest and rest.lstrip()[:1] == b"{" and _is_unfinished(rest):
            self._keep(rest)
        elif rest or not objects:
            fault = parse_line(rest) if objects else value
            if is_last and _is_truncated_object(rest):
                self._warn(TRUNCATED)
                fault = Fault("truncated", fault.detail, fault.raw)
            yield fault

    def faults(self, *, at_end: bool = False) -> Iterator[Fault]:
        """Give up the object that did not end: a fault for each of its lines, or one where objects span lines."""
        lines = [b"\n".join(self.unfinished)] if self._spans_lines and self.unfinished else self.unfinished
        self._forget()
        for position, line in enumerate(lines):
            fault = parse_line(line)
            detail = fault.detail if isinstance(fault, Fault) else "a part of an object that does not end"
            is_truncated = at_end and position == len(lines) - 1
            if is_truncated:
                self._warn(TRUNCATED)
            raw = line.decode(errors="replace")
            yield Fault("truncated" if is_truncated else "bad_json", detail, raw)

    def _objects(self) -> Iterator[Any]:
        """The objects that the lines begin with; where there is none now, no further line makes one."""
        objects, rest = _objects_of(b"\n".join(self.unfinished))
        if not objects:
            self._brackets.are_closed = False
            self._brackets.are_broken = True
            return
        self._spans_lines = True
        self._forget()
        yield from objects
        if rest:
            self._keep(rest)

    def _keep(self, line: bytes) -> None:
        self._indent = self._indent if self.unfinished else _indent(line)
        self.unfinished.append(line)
        self._size += len(line)
        self._brackets.add(line)

    def _forget(self) -> None:
        self.unfinished, self._size, self._brackets = [], 0, _OpenBrackets()


class _OpenBrackets:
    """Whether the value that lines begin with has ended, so that it is parsed once and not again with every line."""

    def __init__(self) -> None:
        self.are_closed = self.are_broken = False
        self._depth = 0

    def add(self, line: bytes) -> None:
        """Count the brackets of a line outside of its texts."""
        if self.are_closed or self.are_broken:
            return
        for match in _TEXT_OR_BRACKET.finditer(line):
            if match[2]:  # a text that does not end in its line is no JSON
                self.are_broken = True
                return
            if match[1]:
                self._depth += 1 if match[1] in b"{[" else -1
                if self._depth <= 0:
                    self.are_closed = True
                    return


def _indent(line: bytes) -> int:
    return len(line) - len(line.lstrip())


def _objects_of(data: bytes) -> tuple[list[Any], bytes]:
    """The objects that `data` begins with, which commas or white space may separate, and what comes after them."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return [], data
    objects, start = list[Any](), 0
    while gap := _GAP.match(text, start):
        start = gap.end()
        if text[start : start + 1] != "{":
            break
        try:
            value, start = _decoded(text, start)
        except (ValueError, RecursionError):
            break
        objects.append(value)
    return objects, text[start:].encode()


def _is_unfinished(line: bytes) -> bool:
    """Whether a line is the beginning of valid JSON and stops where a value, a name or a bracket is missing."""
    text = line.decode(errors="replace").strip(" \t\r\n")
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return error.pos >= len(text)
    except (ValueError, RecursionError):
        return False
    return False


def _is_truncated_object(line: bytes) -> bool:
    """Whether a line that is not valid JSON is the beginning of an object."""
    text = line.decode(errors="ignore").strip(" \t\r\n")
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
        value = json.loads(line.decode())
        _require_shallow(value)
    except UnicodeDecodeError as error:
        return Fault("bad_encoding", f"byte {error.start}: {error.reason}", line.decode(errors="replace"))
    except (ValueError, RecursionError):
        literal = python_literal(line.decode()) if line.lstrip()[:2] in (b"{'", b"[{") else None
        return literal if isinstance(literal, (dict, list)) else Fault("bad_json", message, line.decode())
    return value


def read_document(pieces: Iterator[bytes], path: Path, *, warn: Warn) -> Iterator[Any]:
    """The elements of an array, the only value of a file, or what can be recovered of a document that is not valid.

    Args:
        pieces: The content of the file.
        path: The file, for messages.
        warn: Is called with what the user should know of the file.

    Raises:
        UserError: the file is not JSON, or holds one number or a text that is no JSON itself.
    """
    parts, size = list[bytes](), 0
    for piece in pieces:
        parts.append(piece)
        size += len(piece)
        _require_fitting(size, path)
    data = b"".join(parts)
    del parts
    if not data or data.isspace():
        return
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        yield from _recovered_rows(data, path, warn)
        return
    is_encoded = isinstance(value, str) and value.lstrip()[:1] in ("[", "{")
    if not isinstance(value, (list, dict)) and not is_encoded:
        raise UserError(
            f"{path} holds one JSON {type(value).__name__}. Accepted: a list of rows, an object with such a list, "
            "or one row as an object."
        )
    yield value


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
    row_keys = set[_Keys]()
    while True:
        gap = _GAP.match(text, start)
        start = gap.end() if gap else start
        if start >= len(text):
            if closing == "]":
                warn("the file ends without its closing bracket; all rows before that were read")
            return
        if text[start] in "]}":
            following = _GAP.match(text, start + 1)
            after = following.end() if following else start + 1
            if text[start] == "}" or after >= len(text):
                return
            # One array after the other, as files are joined.
            start = after + 1 if text[after] == "[" else after
            continue
        try:
            value, end = _decoded(text, start)
        except (ValueError, RecursionError) as error:
            detail = str(error)[:200]
            resumed = _next_row(text, start, row_keys)
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


def _next_row(text: str, start: int, row_keys: set[_Keys]) -> int | None:
    """Where the next row begins after a broken one: an object with the same keys as one of the rows before.

    Where no row came before, rows are the objects whose keys cover most of the text: rows cover more of it than what
    is inside of them.
    """
    if not row_keys:
        covered: Counter[_Keys] = Counter()
        for begin, end, keys in islice(_objects(text, start), _SAMPLED_OBJECTS):
            covered[keys] += end - begin
        row_keys = {keys for keys, _ in covered.most_common(1)}
    return next((begin for begin, _, keys in _objects(text, start) if keys in row_keys), None)


def _objects(text: str, start: int) -> Iterator[tuple[int, int, _Keys]]:
    """Every object after a comma: where it begins and ends, and its keys."""
    for comma in _NEXT_OBJECT.finditer(text, start):
        try:
            value, end = _decoded(text, comma.end())
        except (ValueError, RecursionError):
            continue
        yield comma.end(), end, frozenset(value)


def _decoded(text: str, start: int) -> tuple[Any, int]:
    """The value that begins at `start`, by Python's parser, and where it ends.

    Raises:
        ValueError: there is no JSON value.
        RecursionError: it is nested too deeply.
    """
    value, end = _PARSER.raw_decode(text, start)
    _require_shallow(value)
    return value, end


def _require_shallow(value: Any) -> None:
    """Raise `RecursionError` for more than 500 levels. Where Python's parser stops depends on its version."""
    level, depth = [value], 0
    while level:
        if (depth := depth + 1) > _DEEPEST:
            raise RecursionError("nested too deeply")
        containers = (item for item in level if item.__class__ in (list, dict))
        level = [
            inner
            for item in containers
            for inner in (item.values() if isinstance(item, dict) else item)
            if inner.__class__ in (list, dict)
        ]


def _raw(text: str, span: _Span) -> str:
    begin, end = span
    return text[begin : min(end, begin + _RAW_CHARACTERS)].encode(errors="replace").decode()
