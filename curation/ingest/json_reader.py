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
from siftune.curation.formats.faults import MAX_CELL, Fault
from siftune.curation.ingest.decompression import Warn

TRUNCATED = "the file is truncated: its last row is incomplete and was quarantined"
_SAMPLED_OBJECTS = 200
_RAW_CHARACTERS = 2000  # of a faulty row that are kept
_GAP = re.compile(r"[\s,]*")
_NEXT_OBJECT = re.compile(r",\s*(?=\{)")
_WRAPPED_ARRAY = re.compile(r'\{\s*"[^"]*"\s*:\s*\[')
_ESCAPED_BYTES = re.compile("[\udc80-\udcff]")

_Span = tuple[int, int]
_Keys = frozenset[str]


def read_values(pieces: Iterator[bytes], path: Path, *, is_lines: bool, warn: Warn) -> Iterator[Any]:
    """The values of a file: those of its lines, the elements of its array, or its only value.

    Args:
        pieces: The content of the file.
        path: The file, for messages.
        is_lines: Whether the file is named as JSON Lines, which decides where the content does not.
        warn: Is called with what the user should know of the file.

    Raises:
        UserError: the file is not JSON.
    """
    # 1. Read until a second line with text begins.
    beginning = b""
    for piece in pieces:
        beginning = beginning + piece
        if b"\n" in piece and _second_line(beginning):
            break
    first, second = beginning.strip().partition(b"\n")[0].strip(), _second_line(beginning)
    # 2. Each line is a value, or the file as a whole is.
    is_complete = not isinstance(parse_line(first), Fault)
    if first[:1] == b"[":
        is_document = not second or (not is_complete and (not is_lines or _is_unfinished(first)))
    elif is_lines:
        is_document = False
    else:
        is_document = not second or not (is_complete or (first[:1] == b"{" and second[:1] == b"{"))
    content = chain([beginning], pieces)
    yield from read_document(content, path, warn=warn) if is_document else read_lines(content, warn=warn)


def _second_line(beginning: bytes) -> bytes:
    """The beginning of the second line that is not blank, as far as it was read."""
    return beginning.strip().partition(b"\n")[2].lstrip(b"\r\n")[:200]


def read_lines(pieces: Iterator[bytes], *, warn: Warn) -> Iterator[Any]:
    """The values of JSON Lines, split at the newline byte only (texts may hold U+2028); blank lines are no rows.

    A line may hold several objects, and an object may go on over several lines.
    """
    salvage = _LineSalvage(warn)
    tail: list[bytes] = []
    for piece in pieces:
        first, *others = piece.split(b"\n")
        tail.append(first)
        if others:
            complete = (b"".join(tail), *others[:-1])
            tail = [others[-1]]
            for line in complete:
                if line and not line.isspace():
                    value = parse_line(line)
                    if value.__class__ is dict and not salvage.unfinished:
                        yield value
                    else:
                        yield from salvage.values(line, value)
    last = b"".join(tail)
    if last and not last.isspace():
        yield from salvage.values(last, parse_line(last), is_last=True)
    yield from salvage.faults(at_end=True)


class _LineSalvage:
    """Values of lines that are no objects by themselves: several objects on one line, one object over several lines."""

    def __init__(self, warn: Warn) -> None:
        self.unfinished: list[bytes] = []  # lines of an object that did not end yet
        self._size = 0  # of these lines
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
            indent = _indent(self.unfinished[0])
            begins_object = line[indent : indent + 1] == b"{" and _indent(line) == indent
            if not begins_object and self._size < MAX_CELL:
                self._keep(line)
                if _indent(line) <= indent and line.rstrip()[-1:] in (b"}", b",", b"]", b"{"):
                    objects, rest = _objects_of(b"\n".join(self.unfinished))
                    if objects:
                        self._spans_lines = True
                        self.unfinished, self._size = [], 0
                        yield from objects
                        if rest:
                            self._keep(rest)
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
        self.unfinished, self._size = [], 0
        for position, line in enumerate(lines):
            fault = parse_line(line)
            detail = fault.detail if isinstance(fault, Fault) else "a part of an object that does not end"
            is_truncated = at_end and position == len(lines) - 1
            if is_truncated:
                self._warn(TRUNCATED)
            raw = line.decode(errors="replace")
            yield Fault("truncated" if is_truncated else "bad_json", detail, raw)

    def _keep(self, line: bytes) -> None:
        self.unfinished.append(line)
        self._size += len(line)


def _indent(line: bytes) -> int:
    return len(line) - len(line.lstrip())


def _objects_of(data: bytes) -> tuple[list[Any], bytes]:
    """The objects that `data` begins with, which commas or white space may separate, and what comes after them."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return [], data
    decoder, objects, start = json.JSONDecoder(), list[Any](), 0
    while gap := _GAP.match(text, start):
        start = gap.end()
        if text[start : start + 1] != "{":
            break
        try:
            value, start = decoder.raw_decode(text, start)
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
        return json.loads(line.decode())
    except UnicodeDecodeError as error:
        return Fault("bad_encoding", f"byte {error.start}: {error.reason}", line.decode(errors="replace"))
    except (ValueError, RecursionError):
        literal = python_literal(line.decode()) if line.lstrip()[:2] in (b"{'", b"[{") else None
        return literal if isinstance(literal, (dict, list)) else Fault("bad_json", message, line.decode())


def read_document(pieces: Iterator[bytes], path: Path, *, warn: Warn) -> Iterator[Any]:
    """The elements of an array, the only value of a file, or what can be recovered of a document that is not valid.

    Args:
        pieces: The content of the file.
        path: The file, for messages.
        warn: Is called with what the user should know of the file.

    Raises:
        UserError: the file is not JSON, or holds one number or a text that is no JSON itself.
    """
    data = b"".join(pieces)
    if not data.strip():
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
    decoder, row_keys = json.JSONDecoder(), set[_Keys]()
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
