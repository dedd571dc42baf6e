"""ShareGPT: a column `conversations` with turns of {from, value} or {role, content}; `system` and `tools` beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from siftune.curation.formats.cells import Columns, Row
from siftune.curation.formats.dialogues import dialogue_in_cell, is_dialogue
from siftune.curation.formats.faults import Fault
from siftune.curation.formats.format import SYSTEM_PROMPTS, Format
from siftune.curation.formats.turns import Turns


def convert(row: Row, columns: Columns) -> Turns | Fault:
    """The turns as they are; a `system` column comes first, other columns (`tools`) go to `meta`."""
    return dialogue_in_cell(row, columns, "conversations")


def matches(role: str, values: Sequence[Any]) -> bool:
    """Whether any of `values` of the dialogue column is a dialogue."""
    return role != "conversations" or any(is_dialogue(value) for value in values)


FORMAT = Format(
    name="sharegpt",
    roles={
        "conversations": ("conversations", "conversation", "dialogue", "dialog", "items", "data"),
        "system": SYSTEM_PROMPTS,
    },
    required=("conversations",),
    convert=convert,
    matches=matches,
)
