"""JSON as it is found: lines, arrays, an object around an array, cut or broken; nothing readable is lost."""

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
from siftune.curation.formats.conversation import Fault
from siftune.curation.ingest.source_files import Note

CUT = "the file is cut in the middle: its last row was lost"
#: A list of objects under one of these names is part of a row; under any other name it is the list of rows.
_OF_A_ROW = {
    "messages", "conversations", "conversation", "dialogue", "dialog", "chat", "turns", "history", "items",
    "chosen", "rejected", "prompt", "completion", "tools", "functions", "choices",
}  # fmt: skip
_LOOKED_AT = 200  # objects
_GAP = re.compile(r"[\s,]*")
_NEXT = re.compile(r",\s*(?=\{)")
_WRAPPED = re.compile(r'\{\s*"[^"]*"\s*:\s*\[')
_BAD_BYTES = re.compile("[\udc80-\udcff]")


def lines(pieces: Iterator[bytes], *, note: Note) -> Iterator[Any]:
    """The values of JSON Lines, split on the newline byte only (texts may hold U+2028); blank lines are no rows."""
    tail: list[bytes] = []
    for piece in pieces:
        first, *others = piece.split(b"\n")
        tail.append(first)
        if others:
            complete = (b"".join(tail), *others[:-1])
            tail = [others[-1]]
            yield from (parse(line) for line in complete if line and not line.isspace())
    last = b"".join(tail)
    if last and not last.isspace():
        value = parse(last)
        if isinstance(value, Fault) and _is_cut(last):
            note(CUT)
            value = Fault("truncated", value.detail, value.raw)
        yield value


def _is_cut(line: bytes) -> bool:
    """Whether a line that is not JSON is the beginning of an object."""
    text = line.decode(errors="ignore").strip()
    try:
        json.loads(text)
    except json.JSONDecodeError as fault:
        return text.startswith("{") and (fault.pos >= len(text) or not text.endswith("}"))
    except (ValueError, RecursionError):
        return False
    return False


def parse(line: bytes) -> Any:
    """The value of a line, or the `Fault` that says why there is none."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as fault:
        return _second_look(line, str(fault))


def _second_look(line: bytes, told: str) -> Any:
    """What orjson refuses: NaN and lone surrogates, which Python reads, and what nobody can read."""
    if b"\0" in line:
        return Fault("nul_byte", "a NUL byte", line.decode(errors="replace"))
    if "depth limit" in told:
        return Fault("bad_json", "nested too deeply", line.decode(errors="replace"))
    try:
        return json.loads(line.decode())
    except UnicodeDecodeError as fault:
        return Fault("bad_encoding", f"byte {fault.start}: {fault.reason}", line.decode(errors="replace"))
    except (ValueError, RecursionError):
        return Fault("bad_json", told, line.decode(errors="replace"))


def document(pieces: Iterator[bytes], path: Path, *, note: Note) -> Iterator[Any]:
    """The rows of a .json file: an array, an object that holds one, a single object, or JSON Lines under that name.

    Raises:
        UserError: it is none of these.
    """
    head: list[bytes] = []
    for piece in pieces:
        head.append(piece)
        if piece.count(b"\n") > 1 or b"".join(head[:2]).lstrip()[:1] == b"[":
            break
    begun = b"".join(head)
    if _is_lines(begun):
        yield from lines(chain([begun], pieces), note=note)
        return
    data = b"".join([begun, *pieces])
    if not data.strip():
        return
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        yield from _recovered(data, path, note)
        return
    yield from value if isinstance(value, list) else _inside(value, path, note)


def is_array(begun: bytes) -> bool:
    """Whether a file begins with a bracket on a line of its own: an indented array, whatever its name says."""
    return begun.lstrip().partition(b"\n")[0].strip() == b"[" and b"\n" in begun


def _is_lines(begun: bytes) -> bool:
    """Whether a second line opens an object at its first character; an indented document never does."""
    written = [line for line in begun.lstrip().split(b"\n", 20) if line.strip()]
    return len(written) > 1 and written[0].startswith(b"{") and written[1].startswith(b"{")


def _inside(value: Any, path: Path, note: Note) -> Iterator[Any]:
    if not isinstance(value, dict):
        raise UserError(
            f"{path} holds one JSON {type(value).__name__}; a list of rows, or an object with one, is wanted."
        )
    tables = {
        key: rows
        for key, rows in value.items()
        if isinstance(rows, list) and rows and isinstance(rows[0], (dict, list)) and key.lower() not in _OF_A_ROW
    }
    if not tables:
        yield value
    elif len(tables) == 1:
        (key, rows), *_ = tables.items()
        note(f"its rows are the list under {key!r}")
        yield from rows
    elif len(tables) == len(value):
        note(f"its rows are the lists under {', '.join(map(repr, tables))}, which are kept as their splits")
        for key, rows in tables.items():
            yield from (_with_split(row, key) for row in rows)
    else:
        raise UserError(f"{path} is an object with several lists ({', '.join(tables)}); which are the rows? Keep one.")


def _with_split(row: Any, split: str) -> Any:
    if isinstance(row, list):
        row = {str(place): value for place, value in enumerate(row)}
    return {"split": split, **row} if isinstance(row, dict) else row


def _recovered(data: bytes, path: Path, note: Note) -> Iterator[Any]:
    """Row after row of a document that is not JSON as a whole."""
    try:
        text, mixed = data.decode(), False
    except UnicodeDecodeError:
        text, mixed = data.decode(errors="surrogateescape"), True
    body = text.lstrip()
    wrapped = _WRAPPED.match(body)
    if body[:1] == "[":
        start, closes = len(text) - len(body) + 1, "]"
    elif wrapped and "\n{" not in body:
        start, closes = len(text) - len(body) + wrapped.end(), "}"
    elif body[:1] == "{":
        start, closes = len(text) - len(body), "}"
    else:
        raise UserError(f"{path} is not JSON: it begins with {body[:30]!r}; an array of objects is wanted.")
    for value, span in _scan(text, start, closes, note):
        broken = mixed and _BAD_BYTES.search(text, *span)
        yield Fault("bad_encoding", "not UTF-8", _shown(text, span)) if broken else value


def _scan(text: str, at: int, closes: str, note: Note) -> Iterator[tuple[Any, tuple[int, int]]]:
    decoder, shapes = json.JSONDecoder(), set[frozenset[str]]()
    while True:
        gap = _GAP.match(text, at)
        at = gap.end() if gap else at
        if at >= len(text):
            if closes == "]":
                note("the file ends without its closing bracket; every row before that was read")
            return
        if text[at] in "]}":
            return
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as fault:
            place = getattr(fault, "pos", at)
            resumed = _resume(text, at, shapes, decoder)
            span = (at, resumed or len(text))
            if resumed is None:
                stripped = text.rstrip()
                cut = not stripped.endswith(closes) or place >= len(stripped)
                note(CUT if cut else "the JSON is broken; what follows the break is quarantined as one row")
                yield Fault("truncated" if cut else "bad_json", str(fault)[:200], _shown(text, span)), span
                return
            yield Fault("bad_json", str(fault)[:200], _shown(text, span)), span
            at = resumed
            continue
        if isinstance(value, dict):
            shapes.add(frozenset(value))
        yield value, (at, end)
        at = end


def _resume(text: str, at: int, shapes: set[frozenset[str]], decoder: json.JSONDecoder) -> int | None:
    """Where the next row begins after a broken one: an object with the same keys as one of the rows before."""
    shapes = shapes or _likely_shape(text, at, decoder)
    return next((start for start, _, shape in _objects(text, at, decoder) if shape in shapes), None)


def _likely_shape(text: str, at: int, decoder: json.JSONDecoder) -> set[frozenset[str]]:
    """The keys of the objects that cover most of the text: rows cover more of it than what is inside of them."""
    covered: Counter[frozenset[str]] = Counter()
    for start, end, shape in islice(_objects(text, at, decoder), _LOOKED_AT):
        covered[shape] += end - start
    return {shape for shape, _ in covered.most_common(1)}


def _objects(text: str, at: int, decoder: json.JSONDecoder) -> Iterator[tuple[int, int, frozenset[str]]]:
    """Every object after a comma: where it begins and ends, and its keys."""
    for gap in _NEXT.finditer(text, at):
        try:
            value, end = decoder.raw_decode(text, gap.end())
        except (ValueError, RecursionError):
            continue
        yield gap.end(), end, frozenset(value)


def _shown(text: str, span: tuple[int, int]) -> str:
    return text[span[0] : min(span[1], span[0] + 2000)].encode(errors="replace").decode()
