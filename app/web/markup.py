"""Everything of a data set that is drawn goes through here: text of unknown origin is shown as text, never run.

All functions return HTML in which every piece of foreign text was made visible and escaped. `draw` is the only
place that hands HTML to Streamlit.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import streamlit as st

from siftune.app.web.theme import STYLE
from siftune.curation.text.differences import Part
from siftune.curation.text.hidden_characters import visible

#: A browser lays out this much text of one message without a stutter; the rest is a download.
LONGEST = 20_000
MOST_TURNS = 60

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$:^=&@/])")
_DRAWN = re.compile(r"[\u2500-\u257f]|^ *\|.*\|$", re.MULTILINE)
_CODE = re.compile(r"^>>> |^\t|^ {4}\S", re.MULTILINE)
_FENCE = re.compile(r"^```[^\n]*\n(.*?)(?:^```[ \t]*$\n?|\Z)", re.MULTILINE | re.DOTALL)


def clip(text: str, most: int = LONGEST) -> str:
    """The first `most` characters, and how many more there are."""
    return text if len(text) <= most else f"{text[:most]}… (and {len(text) - most:,} more characters)"


def line(text: str, most: int = 160) -> str:
    """`text` as one visible line for a table cell; not HTML."""
    short = text[: most + 1].replace("\n", " ")
    return visible(short if len(text) <= most else f"{short[:most]}…")


def markdown(text: str) -> str:
    """`text` as Markdown that shows exactly this text, for the labels of widgets, which Streamlit renders."""
    return _MARKDOWN.sub(r"\\\1", line(text))


def escaped(text: object) -> str:
    """Foreign text as HTML that shows exactly this text."""
    return html.escape(visible(str(text)))


def draw(markup: str, where: Any = None) -> None:
    """Draw markup made by this module, in place of what `where` (a placeholder) holds, or at the end of the page."""
    (st if where is None else where).html(markup)


def style() -> None:
    """The style sheet of everything drawn here; once a page."""
    draw(f"<style>{STYLE}</style>")


def prose(text: str, *, most: int = LONGEST) -> str:
    """Text as it stands, with fenced code set apart."""
    pieces: list[str] = []
    end = 0
    short = clip(text, most)
    for block in _FENCE.finditer(short):
        pieces += [_paragraph(short[end : block.start()]), f'<pre dir="auto">{escaped(block.group(1))}</pre>']
        end = block.end()
    return "".join([*pieces, _paragraph(short[end:])])


def _paragraph(text: str) -> str:
    return f'<div class="{_set(text)}" dir="auto">{escaped(text.strip(chr(10)))}</div>' if text.strip("\n") else ""


def _set(text: str) -> str:
    """The class of a text: code and sessions are only legible where all letters are equally wide, drawn tables only
    where no line is broken either.
    """
    if _DRAWN.search(text[:LONGEST]):
        return "text mono drawn"
    return "text mono" if _CODE.search(text[:LONGEST]) else "text"


def bubble(role: str, text: str, *, label: str | None = None, body: str | None = None, tone: str = "") -> str:
    """One turn of a conversation. `body` is markup to use in place of `text`; `tone` a colour class."""
    kind = role if role in ("user", "assistant", "system", "tool") else "other"
    inside = prose(text) if body is None else body
    head = escaped(role if label is None else label)
    return f'<div class="sf turn {kind} {_class(tone)}"><div class="who">{head}</div>{inside or EMPTY}</div>'


EMPTY = '<div class="text faint">(empty)</div>'


def conversation(messages: Sequence[Mapping[str, Any]] | None, *, most: int = MOST_TURNS) -> str:
    """Messages (role, content) as a chat; of very long ones the beginning and the end."""
    turns = [(str(each.get("role") or "?"), str(each.get("content") or "")) for each in messages or []]
    if len(turns) <= most:
        return "".join(bubble(role, text) for role, text in turns)
    half = most // 2
    gap = f'<div class="sf faint gap">… {len(turns) - 2 * half:,} turns between …</div>'
    shown = [bubble(role, text) for role, text in turns]
    return "".join([*shown[:half], gap, *shown[-half:]])


def marked(parts: Iterable[Part]) -> str:
    """One side of a word-by-word comparison."""
    parts = list(parts)
    pieces: list[str] = []
    length = 0
    for kind, text in parts:
        if length > LONGEST:
            pieces.append("<i>…</i>")
            break
        short = text[: LONGEST + 1]
        length += len(short)
        pieces.append(f"<mark>{escaped(short)}</mark>" if kind == "changed" and short != "\n" else escaped(short))
    letters = _set("".join(text[:LONGEST] for _, text in parts[:2_000]))
    return f'<div class="{letters}" dir="auto">{"".join(pieces)}</div>'


def tag(text: object, tone: str = "") -> str:
    """A small label; `tone` is a class of the style sheet (a fate or an arm)."""
    return f'<span class="sf tag {_class(tone)}">{escaped(text)}</span>'


def facts(pairs: Iterable[tuple[str, object]]) -> str:
    """Small print under something: names and values in one line."""
    items = [f"<span><b>{escaped(name)}</b> {escaped(value)}</span>" for name, value in pairs]
    return f'<div class="sf facts">{"".join(items)}</div>'


def note(text: object) -> str:
    """A line of quiet prose."""
    return f'<div class="sf faint">{escaped(text)}</div>'


def bar(share: float, tone: str = "", *, over: float = 0.0) -> str:
    """A horizontal bar of `share` of the width; `over` of it, at its end, in the warning colour."""
    rest = max(0.0, min(1.0, share - over)) * 100
    lost = max(0.0, min(1.0, over)) * 100
    return (
        f'<div class="sf bar"><i class="{_class(tone)}" style="width:{rest:.2f}%"></i>'
        f'<i class="dropped" style="width:{lost:.2f}%"></i></div>'
    )


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Sequence[int] = ()) -> str:
    """A plain table; `numbers` are the columns set flush right. A cell that is `Markup` is taken as it is."""
    sides = ["num" if place in numbers else "" for place in range(len(head))]
    top = "".join(f'<th class="{side}">{escaped(name)}</th>' for name, side in zip(head, sides, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f'<td class="{side}">{_cell(cell)}</td>' for cell, side in zip(row, sides, strict=True))
        + "</tr>"
        for row in rows
    )
    return f'<div class="sf scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


class Markup(str):
    """HTML made by this module, so that a table does not escape it again."""

    __slots__ = ()


def named(name: object, small: object) -> Markup:
    """A cell of a table: a name, and small print on a line of its own."""
    return Markup(f"{escaped(name)}<br><small>{escaped(small)}</small>")


def _cell(cell: object) -> str:
    return str(cell) if isinstance(cell, Markup) else escaped("" if cell is None else cell)


def _class(tone: str) -> str:
    """A class name can only hold letters: an arm's name comes from a folder."""
    return re.sub(r"[^a-z]", "", tone)


def problem(message: str) -> str:
    """What went wrong, or what has to be done first; the lines of a message are kept."""
    return f'<div class="sf turn"><div class="text">{escaped(message)}</div></div>'


def title(text: str) -> str:
    """The name at the head of a page."""
    return f'<h1 class="sf">{escaped(text)}</h1>'


def lead(text: str) -> str:
    """The one sentence that a page is about."""
    return f'<div class="sf big">{escaped(text)}</div>'


def strong(text: str) -> str:
    """A name in a row of names."""
    return f'<div class="sf strong">{escaped(text.replace("_", " "))}</div>'


def head(text: str) -> str:
    """The name of a part of a pane."""
    return f'<div class="sf head">{escaped(text)}</div>'


def decision(line: Mapping[str, Any]) -> str:
    """One line of the ledger in words."""
    words = [f"{line['stage']}: {line['action']}", str(line["reason"] or "").replace("_", " ")]
    if line["score"] is not None:
        limit = f" (threshold {line['threshold']:g})" if line["threshold"] is not None else ""
        words.append(f"score {line['score']:.3f}{limit}")
    if line["witness"]:
        words.append(f"because of {line['witness']}")
    if line["detail"]:
        words.append(str(line["detail"]))
    return f'<div class="sf said">{escaped(clip(" · ".join(word for word in words if word), 600))}</div>'


def row_head(row_id: str, row: Mapping[str, Any] | None) -> str:
    """The id of a row and its fate (`row` as in ROWS; None when the run does not know it)."""
    if row is None:
        return f'<div class="sf"><b>{escaped(row_id)}</b></div>'
    fate = str(row["fate"])
    why = f"{row['stage']}: {row['reason']}".replace("_", " ") if row["stage"] else ""
    shown = f'{tag(fate, fate)} <span class="faint">{escaped(why)}</span>'
    return f'<div class="sf"><b>{escaped(row_id)}</b> &nbsp; {shown}</div>'


def trained_tokens(tokens: Sequence[tuple[str, bool]]) -> str:
    """Tokens of a row one after another; those that enter the loss are marked."""
    shown = [
        f'<span class="token{" trained" if trained else ""}">{escaped(text)}</span>' for text, trained in tokens[:4_000]
    ]
    return f'<div class="sf turn"><div class="text" dir="auto">{"".join(shown)}</div></div>'
