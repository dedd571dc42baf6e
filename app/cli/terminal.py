"""Tables and texts on a terminal. Text of data sets is untrusted: its control characters are spelled out here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from siftune.curation.text.differences import DiffSpan
from siftune.curation.text.hidden_characters import visible

_MOST = 600  # characters of a text
#: Characters from which on text that two rows share is elided, and characters of it that stay on each side.
_SHARED, _EDGE = 160, 60
_NUMBER = re.compile(r"([+-]?[\d,.]+( [%s])?)?")
_BLOCKS = " ▏▎▍▌▋▊▉█"


def plain(text: str, *, most: int = _MOST) -> str:
    """The first `most` characters of `text`, with invisible, reordering and control characters spelled out."""
    return visible(text if len(text) <= most else text[: most - 1] + "…")


def line(text: str, *, most: int = _MOST) -> str:
    """`text` as one line: each run of white space becomes one space."""
    return plain(" ".join(text[: 2 * most].split()), most=most)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """A table without borders; columns of numbers are right-aligned."""
    output = Table(
        title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0)
    )
    lines = [list(row) for row in rows]
    for index, name in enumerate(columns):
        right = bool(lines) and all(_is_number(line[index]) for line in lines)
        output.add_column(name, justify="right" if right else "left", overflow="fold", header_style="dim")
    for cells in lines:
        output.add_row(*[value if isinstance(value, Text) else Text(_cell(value)) for value in cells])
    return output


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, int | float) or bool(_NUMBER.fullmatch(str(value)))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.2f}" if abs(value) >= 10 else f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else line(str(value))


def bar(share: float, *, width: int = 16) -> str:
    """A bar of `share` (0 to 1) of `width` cells, to an eighth of a cell."""
    cells, eighths = divmod(round(share * width * 8), 8)
    return "█" * cells + (_BLOCKS[eighths] if eighths else "")


def notes(warnings: Iterable[str]) -> list[Text]:
    """Warnings, one line each."""
    return [Text.assemble(("Note: ", "yellow"), line(warning)) for warning in warnings]


def beside(heads: tuple[str, str], sides: tuple[Sequence[DiffSpan], Sequence[DiffSpan]]) -> Table:
    """Two texts side by side, with headings; words that differ are in colour, long shared passages elided."""
    output = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), expand=True)
    for head, colour in zip(heads, ("red", "green"), strict=True):
        output.add_column(Text(line(head), style=f"bold {colour}"), ratio=1, overflow="fold")
    output.add_row(*[marked(parts, colour) for parts, colour in zip(sides, ("red", "green"), strict=True)])
    return output


def marked(parts: Sequence[DiffSpan], colour: str) -> Text:
    """One text of a comparison as one paragraph; words that differ are in colour and brackets."""
    paragraph = Text()
    remaining = _MOST
    parts = _joined(parts)
    for index, (kind, text) in enumerate(parts):
        words = " ".join(text.split())
        lead, tail = " " * text[:1].isspace(), " " * text[-1:].isspace()
        piece = plain(_elided(words, first=index == 0, last=index == len(parts) - 1) if kind == "same" else words)
        if kind == "changed" and words:
            paragraph.append(f"{lead}[{piece}]{tail}", style=f"bold {colour}")
        else:
            paragraph.append(f"{lead}{piece}{tail if words else ''}")
        remaining -= len(piece)
        if remaining <= 0:
            return paragraph.append("…") if index < len(parts) - 1 else paragraph
    return paragraph


def _joined(parts: Sequence[DiffSpan]) -> list[DiffSpan]:
    """Changed spans with only white space between them become one."""
    joined: list[DiffSpan] = []
    for kind, text in parts:
        if kind == "changed" and len(joined) > 1 and joined[-1][1].isspace() and joined[-2][0] == "changed":
            text = joined.pop(-2)[1] + joined.pop()[1] + text
        joined.append((kind, text))
    return joined


def _elided(text: str, *, first: bool, last: bool) -> str:
    if len(text) <= _SHARED:
        return text
    head = text[: _SHARED if last else 2 * _EDGE if first else _EDGE]
    return f"{head} …" if last else f"{head} … {text[-_EDGE:]}"
