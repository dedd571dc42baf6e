"""How things are drawn on a terminal: tables, texts side by side. Dataset text is hostile and is made harmless here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from siftune.curation.text.differences import Part
from siftune.curation.text.hidden_characters import visible

_MOST = 600
#: Text that two rows share is elided where it is longer than this; so much of it stays on each side.
_SHARED, _EDGE = 160, 60
_NUMBER = re.compile(r"([+-]?[\d,.]+( [%s])?)?")
_BLOCKS = " ▏▎▍▌▋▊▉█"


def plain(text: str, *, most: int = _MOST) -> str:
    """`text` cut after `most` characters, with characters that hide, reorder or steer spelled out."""
    return visible(text if len(text) <= most else text[: most - 1] + "…")


def line(text: str, *, most: int = _MOST) -> str:
    """`text` as one line: runs of white space become one space."""
    return plain(" ".join(text[: 2 * most].split()), most=most)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """A quiet table; numbers stand right."""
    drawn = Table(
        title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0)
    )
    listed = [list(row) for row in rows]
    for place, name in enumerate(columns):
        right = bool(listed) and all(_is_number(row[place]) for row in listed)
        drawn.add_column(name, justify="right" if right else "left", overflow="fold", header_style="dim")
    for row in listed:
        drawn.add_row(*[value if isinstance(value, Text) else Text(_cell(value)) for value in row])
    return drawn


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, int | float) or bool(_NUMBER.fullmatch(str(value)))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.2f}" if abs(value) >= 10 else f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else line(str(value))


def bar(share: float, *, width: int = 16) -> str:
    """A bar of `share` (0 to 1) of `width` cells, drawn to an eighth of a cell."""
    whole, rest = divmod(round(share * width * 8), 8)
    return "█" * whole + (_BLOCKS[rest] if rest else "")


def notes(said: Iterable[str]) -> list[Text]:
    """What a person should know, one line each."""
    return [Text.assemble(("Note: ", "yellow"), line(each)) for each in said]


def beside(heads: tuple[str, str], sides: tuple[Sequence[Part], Sequence[Part]]) -> Table:
    """Two texts side by side; what only one of them has is in colour, long shared parts are elided."""
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), expand=True)
    for head, colour in zip(heads, ("red", "green"), strict=True):
        drawn.add_column(Text(line(head), style=f"bold {colour}"), ratio=1, overflow="fold")
    drawn.add_row(*[marked(parts, colour) for parts, colour in zip(sides, ("red", "green"), strict=True)])
    return drawn


def marked(parts: Sequence[Part], colour: str) -> Text:
    """One side of a comparison as one paragraph; without colours, brackets show what differs."""
    shown = Text()
    room = _MOST
    parts = _joined(parts)
    for place, (kind, text) in enumerate(parts):
        words = " ".join(text.split())
        lead, tail = " " * text[:1].isspace(), " " * text[-1:].isspace()
        piece = plain(_elided(words, first=place == 0, last=place == len(parts) - 1) if kind == "same" else words)
        if kind == "changed" and words:
            shown.append(f"{lead}[{piece}]{tail}", style=f"bold {colour}")
        else:
            shown.append(f"{lead}{piece}{tail if words else ''}")
        room -= len(piece)
        if room <= 0:
            return shown.append("…") if place < len(parts) - 1 else shown
    return shown


def _joined(parts: Sequence[Part]) -> list[Part]:
    """Changed parts with nothing but white space between them as one."""
    found: list[Part] = []
    for kind, text in parts:
        if kind == "changed" and len(found) > 1 and found[-1][1].isspace() and found[-2][0] == "changed":
            text = found.pop(-2)[1] + found.pop()[1] + text
        found.append((kind, text))
    return found


def _elided(text: str, *, first: bool, last: bool) -> str:
    if len(text) <= _SHARED:
        return text
    head = text[: _SHARED if last else 2 * _EDGE if first else _EDGE]
    return f"{head} …" if last else f"{head} … {text[-_EDGE:]}"
