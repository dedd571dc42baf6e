"""HTML of everything that a data set holds: text of unknown origin is shown as text and never executed.

All functions return HTML in which every piece of foreign text has its invisible characters spelled out and is escaped.
Only `draw` hands HTML to Streamlit.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import streamlit as st
from markdown_it import MarkdownIt

from siftune.app.web.theme import STYLE
from siftune.curation.review.wording import reason_text
from siftune.curation.text.differences import DiffSpan
from siftune.curation.text.hidden_characters import visible

#: Characters of one message that a browser lays out without a delay.
LONGEST = 20_000
MOST_TURNS = 60

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$:^=&@/])")
_BOX_DRAWING = re.compile(r"[\u2500-\u257f]|^ *\|.*\|$", re.MULTILINE)
_CODE = re.compile(r"^>>> |^\t|^ {4}\S", re.MULTILINE)
_IN_BACKTICKS = re.compile(r"`([^`\n]+)`")
_FENCE = re.compile(r"^```[^\n]*\n(.*?)(?:^```[ \t]*$\n?|\Z)", re.MULTILINE | re.DOTALL)


def clip(text: str, limit: int = LONGEST) -> str:
    """The first `limit` characters, and how many more there are."""
    return text if len(text) <= limit else f"{text[:limit]}… (and {len(text) - limit:,} more characters)"


def line(text: str, limit: int = 160) -> str:
    """`text` as one line with visible characters, for the cell of a data frame; not HTML."""
    short = text[: limit + 1].replace("\n", " ")
    return visible(short if len(text) <= limit else f"{short[:limit]}…")


def markdown(text: str) -> str:
    """`text` as Markdown that shows exactly this text, for the labels of widgets, which Streamlit renders."""
    return _MARKDOWN.sub(r"\\\1", line(text))


def escaped(text: object) -> str:
    """Foreign text as HTML that shows exactly this text."""
    return html.escape(visible(str(text)))


def draw(markup: str, placeholder: Any = None) -> None:
    """Draw HTML made by this module, in `placeholder` or at the end of the page."""
    (st if placeholder is None else placeholder).html(markup)


def style() -> None:
    """Draw the style sheet; once for each page."""
    draw(f"<style>{STYLE}</style>")


def prose(text: str, *, limit: int = LONGEST) -> str:
    """Text as it is, fenced code in blocks."""
    pieces: list[str] = []
    end = 0
    short = clip(text, limit)
    for block in _FENCE.finditer(short):
        pieces += [_paragraph(short[end : block.start()]), f'<pre dir="auto">{escaped(block.group(1))}</pre>']
        end = block.end()
    return "".join([*pieces, _paragraph(short[end:])])


def _markdown_reader() -> MarkdownIt:
    """A reader of CommonMark with tables, without everything that could load or lead somewhere.

    Raw HTML, images, links and addresses stay the text that they are written as; attributes come from the reader alone.
    """
    reader = MarkdownIt("commonmark", {"html": False, "breaks": True, "maxNesting": _DEEPEST}).enable(
        ["table", "strikethrough"]
    )
    reader.disable(["html_block", "html_inline", "image", "link", "autolink", "reference"])
    # The reader's own rules for code would write the foreign name of its language into an attribute.
    for name in ("fence", "code_block"):
        reader.add_render_rule(name, _code_block)
    reader.add_render_rule("table_open", lambda *_: '<div class="scroll"><table>')
    reader.add_render_rule("table_close", lambda *_: "</table></div>")
    return reader


def _code_block(_renderer: Any, tokens: Sequence[Any], index: int, *_: Any) -> str:
    return f'<pre dir="auto">{html.escape(tokens[index].content)}</pre>'


def rendered(text: str) -> str:
    """An answer as Markdown: code, lists, tables, headings, emphasis. Nothing in it loads or leads anywhere."""
    tokens = _READER.parse(visible(clip(text)))
    if any(token.level >= _DEEPEST - 2 for token in tokens):
        return prose(text)  # the reader leaves out what is nested more deeply
    # Characters that a text spells as entities appear only when it is read, so they are made visible afterwards too.
    body = visible(_READER.renderer.render(tokens, _READER.options, {}))
    return f'<div class="md" dir="auto">{body}</div>' if text.strip() else ""


_DEEPEST = 20
_READER = _markdown_reader()


def _paragraph(text: str) -> str:
    return (
        f'<div class="{_text_class(text)}" dir="auto">{escaped(text.strip(chr(10)))}</div>' if text.strip("\n") else ""
    )


def _text_class(text: str) -> str:
    """The style class of a text: a fixed-width font for code and console output, no line breaks in text tables."""
    if _BOX_DRAWING.search(text[:LONGEST]):
        return "text mono drawn"
    return "text mono" if _CODE.search(text[:LONGEST]) else "text"


def bubble(role: str, text: str, *, label: str | None = None, body: str | None = None, tone: str = "") -> str:
    """One message of a conversation.

    Args:
        role: the role of the message.
        text: its content.
        label: the name over the message; the role when None.
        body: HTML made by this module to show in place of `text`.
        tone: a colour class of the style sheet: a fate or an arm.
    """
    kind = role if role in ("user", "assistant", "system", "tool") else "other"
    inside = prose(text) if body is None else body
    head = escaped(role if label is None else label)
    return f'<div class="sf turn {kind} {_class(tone)}"><div class="who">{head}</div>{inside or EMPTY}</div>'


EMPTY = '<div class="text faint">(empty)</div>'


def conversation(messages: Sequence[Mapping[str, Any]] | None, *, limit: int = MOST_TURNS) -> str:
    """Messages (role, content) as a chat; long conversations are shortened to their beginning and end."""
    turns = [(str(turn.get("role") or "?"), str(turn.get("content") or "")) for turn in messages or []]
    if len(turns) <= limit:
        return "".join(bubble(role, text) for role, text in turns)
    half = limit // 2
    gap = f'<div class="sf faint gap">… {len(turns) - 2 * half:,} more turns …</div>'
    bubbles = [bubble(role, text) for role, text in turns]
    return "".join([*bubbles[:half], gap, *bubbles[-half:]])


def marked(parts: Iterable[DiffSpan]) -> str:
    """One text of a word-by-word comparison, with the words that differ marked."""
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
    text_class = _text_class("".join(text[:LONGEST] for _, text in parts[:2_000]))
    return f'<div class="{text_class}" dir="auto">{"".join(pieces)}</div>'


def tag(text: object, tone: str = "") -> str:
    """A small label; `tone` is a class of the style sheet (a fate or an arm)."""
    return f'<span class="sf tag {_class(tone)}">{escaped(text)}</span>'


def facts(pairs: Iterable[tuple[str, object]]) -> str:
    """Names and values in one line of small print."""
    items = [f"<span><b>{escaped(name)}</b> {escaped(value)}</span>" for name, value in pairs]
    return f'<div class="sf facts">{"".join(items)}</div>'


def note(text: object) -> str:
    """A line of explanation in a muted colour."""
    return f'<div class="sf faint">{_cell(text)}</div>'


def bar(share: float, tone: str = "", *, dropped: float = 0.0) -> str:
    """A horizontal bar.

    Args:
        share: its length as a share of the width, 0 to 1.
        tone: its colour class.
        dropped: the share of the width, at the end of the bar, that is drawn in the colour of dropped rows.
    """
    kept_width = max(0.0, min(1.0, share - dropped)) * 100
    dropped_width = max(0.0, min(1.0, dropped)) * 100
    return (
        f'<div class="sf bar"><i class="{_class(tone)}" style="width:{kept_width:.2f}%"></i>'
        f'<i class="dropped" style="width:{dropped_width:.2f}%"></i></div>'
    )


def table(
    head: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Sequence[int] = (), wide_first: bool = False
) -> str:
    """A table; a cell that is `Markup` is not escaped again.

    Args:
        head: the names of the columns.
        rows: the cells of each row.
        numbers: the indices of right-aligned columns.
        wide_first: whether the first column holds names of ours, which are never broken within a word.
    """
    classes = ["num" if column in numbers else "" for column in range(len(head))]
    top = "".join(f'<th class="{name}">{escaped(title)}</th>' for title, name in zip(head, classes, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f'<td class="{name}">{_cell(cell)}</td>' for cell, name in zip(row, classes, strict=True))
        + "</tr>"
        for row in rows
    )
    kind = ' class="named"' if wide_first else ""
    return f'<div class="sf scroll"><table{kind}><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


class Markup(str):
    """HTML made by this module, so that a table, a note or a notice does not escape it again."""

    __slots__ = ()


def with_code(text: str) -> Markup:
    """A text of our own, in which what stands between backticks is drawn as code."""
    return Markup(_IN_BACKTICKS.sub(r"<code>\1</code>", escaped(text)))


def cell_with_note(text: object, note: object) -> Markup:
    """A table cell: a text, and a note in small print on the next line."""
    return Markup(f"{escaped(text)}<br><small>{escaped(note)}</small>")


def _cell(cell: object) -> str:
    return str(cell) if isinstance(cell, Markup) else escaped("" if cell is None else cell)


def _class(tone: str) -> str:
    """A class name made of the letters of `tone` alone: an arm's name comes from a folder and is foreign text."""
    return re.sub(r"[^a-z]", "", tone)


def notice(message: str) -> str:
    """What went wrong, or what to do first; line breaks of the message are kept."""
    return f'<div class="sf turn"><div class="text">{_cell(message)}</div></div>'


def title(text: str) -> str:
    """The heading of a page."""
    return f'<h1 class="sf">{escaped(text)}</h1>'


def purpose(text: str) -> str:
    """What a page is for, in one sentence at its top."""
    return f'<div class="sf purpose">{escaped(text)}</div>'


def figure(label: str, value: str, note: str) -> str:
    """A number that can be read from across the room.

    Args:
        label: what it counts.
        value: the number, or two with an arrow between them.
        note: what else one must know, in small print.
    """
    return (
        f'<div class="sf figure"><div class="label">{escaped(label)}</div><div class="value">{escaped(value)}</div>'
        f'<div class="small">{escaped(note)}</div></div>'
    )


def headline(text: str) -> str:
    """The main sentence of a page, in larger type."""
    return f'<div class="sf big">{escaped(text)}</div>'


def row_label(text: str) -> str:
    """The name at the start of a row, in bold."""
    return f'<div class="sf strong">{escaped(text.replace("_", " "))}</div>'


def section_head(text: str) -> str:
    """The heading of a section in a column."""
    return f'<div class="sf head">{escaped(text)}</div>'


def decision(sentence: str) -> str:
    """One line of the ledger, as `siftune.curation.review.decision_words` writes it."""
    return f'<div class="sf decision">{escaped(clip(sentence, 600))}</div>'


def row_head(row_id: str, row: Mapping[str, Any] | None) -> str:
    """The id of a row and its fate (`row` as in ROWS; None when the run does not know it)."""
    if row is None:
        return f'<div class="sf"><b>{escaped(row_id)}</b></div>'
    fate = str(row["fate"])
    why = f"{row['stage']}: {reason_text(row['reason'])}" if row["stage"] else ""
    details = f'{tag(fate, fate)} <span class="faint">{escaped(why)}</span>'
    return f'<div class="sf"><b>{escaped(row_id)}</b> &nbsp; {details}</div>'


def item_head(reference: str) -> str:
    """The name of an item of a benchmark, over its text."""
    return f'<div class="sf"><b>{escaped(reference)}</b> &nbsp; {tag("item of a benchmark")}</div>'


def trained_tokens(tokens: Sequence[tuple[str, bool]]) -> str:
    """The tokens of a row in order; those that enter the loss are marked."""
    spans = [
        f'<span class="token{" trained" if trained else ""}">{escaped(text)}</span>' for text, trained in tokens[:4_000]
    ]
    return f'<div class="sf turn"><div class="text" dir="auto">{"".join(spans)}</div></div>'
