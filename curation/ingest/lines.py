"""The lines of a file; of one that is longer than a row may be, only how it begins and how long it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from siftune.curation.formats.faults import MAX_ROW, Fault

_KEPT = 8_000  # bytes of a line that is too long


@dataclass(frozen=True, slots=True)
class LongLine:
    """A line that is too long for a row.

    Attributes:
        size: Its bytes.
        beginning: The first of them.
        limit: Bytes that are too many.
    """

    size: int
    beginning: bytes
    limit: int

    def fault(self) -> Fault:
        """Why its row is none."""
        detail = f"a line of {self.size:,} bytes; a row has fewer than {self.limit:,}"
        return Fault("oversized_row", detail, self.beginning.decode(errors="replace"))


def split_lines(
    pieces: Iterator[bytes], *, limit: int = MAX_ROW, line_end: bytes = b"\n"
) -> Iterator[bytes | LongLine]:
    """The lines of a file with their ends. No more than `limit` bytes are kept of one.

    Args:
        pieces: The content of the file.
        limit: Bytes from which on a line is a `LongLine`.
        line_end: What ends a line, one byte.
    """
    tail: list[bytes] = []
    size = 0  # of the line that did not end yet
    for piece in pieces:
        first, *others = piece.split(line_end)
        size += len(first)
        tail.append(first)
        if size >= limit:
            tail = [b"".join(tail)[:_KEPT]]
        if not others:
            continue
        tail.append(line_end)
        yield b"".join(tail) if size < limit else LongLine(size, tail[0], limit)
        last = others.pop()
        for line in others:
            yield line + line_end if len(line) < limit else LongLine(len(line), line[:_KEPT], limit)
        size = len(last)
        tail = [last if size < limit else last[:_KEPT]]
    if size:
        yield b"".join(tail) if size < limit else LongLine(size, tail[0], limit)
