"""OpenAI messages: a column `messages` with turns of {role, content}; content may be a list of text parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from siftune.curation.formats.cells import Columns, Row
from siftune.curation.formats.dialogues import dialogue_in_cell, is_dialogue
from siftune.curation.formats.faults import Fault
from siftune.curation.formats.format import SYSTEM_PROMPTS, Format
from siftune.curation.formats.turns import Turns


def convert(row: Row, columns: Columns) -> Turns | Fault:
    """The turns as they are; tool calls become the JSON text of their turn and stay in `meta` as well."""
    return dialogue_in_cell(row, columns, "messages")


def matches(role: str, values: Sequence[Any]) -> bool:
    """Whether any of `values` of the dialogue column is a dialogue."""
    return role != "messages" or any(is_dialogue(value) for value in values)


FORMAT = Format(
    name="messages",
    roles={
        "messages": ("messages", "chat", "contents"),
        "system": SYSTEM_PROMPTS,
    },
    required=("messages",),
    convert=convert,
    matches=matches,
)
