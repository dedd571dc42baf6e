"""The texts of a row's turns, each with a marker in its place, so that a rendered template shows where they went."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from siftune.training.row_turns import RowTurn

#: A marker; its number is the position of the text in `MarkedTexts`.
MARKER = re.compile(r"zqx(\d+)xqz")
_THOUGHT_TAG = re.compile(r"(<think>|</think>)")


@dataclass
class MarkedTexts:
    """The texts of a row in the order of their markers."""

    texts: list[str] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    #: Blanks before each text.
    leads: list[str] = field(default_factory=list)

    def mark(self, text: str, turn: int, kind: str) -> str:
        """`text` with a marker in place of everything between its outer blanks."""
        core = text.strip()
        if not core:
            return text
        start = text.index(core)
        self.texts.append(core)
        self.turns.append(turn)
        self.kinds.append(kind)
        self.leads.append(text[:start])
        return f"{text[:start]}zqx{len(self.texts) - 1}xqz{text[start + len(core) :]}"


def mark_turn(turn: RowTurn, position: int, texts: MarkedTexts) -> RowTurn:
    """The turn with markers in place of its texts."""
    thought = texts.mark(turn.thought, position, "thought") if turn.thought is not None else None
    content = _mark_content(turn, position, texts)
    calls = tuple(_mark_call(call, position, texts) for call in turn.calls)
    with_calls = texts.mark(turn.content_with_calls, position, "text_call") if turn.calls else content
    return replace(turn, content=content, thought=thought, calls=calls, content_with_calls=with_calls)


def _mark_content(turn: RowTurn, position: int, texts: MarkedTexts) -> str:
    if turn.role != "assistant" or "</think>" not in turn.content:
        return texts.mark(turn.content, position, "content")
    # A thought inside the content: templates drop it from earlier turns, or write it anew.
    pieces = _THOUGHT_TAG.split(turn.content)
    is_thought = "<think>" not in turn.content.split("</think>")[0]
    marked = []
    for piece in pieces:
        if piece in ("<think>", "</think>"):
            is_thought = piece == "<think>"
            marked.append(piece)
        else:
            marked.append(texts.mark(piece, position, "thought" if is_thought else "content"))
    return "".join(marked)


def _mark_call(call: Mapping[str, Any], position: int, texts: MarkedTexts) -> Mapping[str, Any]:
    function = call["function"]
    name = texts.mark(function["name"], position, "call")

    def marked(value: Any) -> Any:
        if isinstance(value, str):
            return texts.mark(value, position, "call")
        if isinstance(value, dict):
            return {key: marked(item) for key, item in value.items()}
        return [marked(item) for item in value] if isinstance(value, list) else value

    return {**call, "function": {**function, "name": name, "arguments": marked(function["arguments"])}}
