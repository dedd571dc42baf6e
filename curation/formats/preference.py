"""Preference pairs: `chosen` is kept as the answer, `rejected` goes to `meta`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from siftune.curation.formats.cells import Columns, Row
from siftune.curation.formats.dialogues import parse_marked_text, parse_text_or_dialogue
from siftune.curation.formats.faults import Fault
from siftune.curation.formats.format import Format
from siftune.curation.formats.turns import Turns, system_turn


def convert(row: Row, columns: Columns) -> Turns | Fault:
    """A chosen dialogue (marked text or messages), or a prompt and the chosen answer to it."""
    answer = _cell_turns(row.get(columns["chosen"]), "assistant")
    prompt = _cell_turns(row.get(columns["prompt"]), "user") if "prompt" in columns else []
    system = system_turn(row, columns)
    if isinstance(answer, Fault):
        return answer
    if isinstance(prompt, Fault):
        return prompt
    if isinstance(system, Fault):
        return system
    if any(turn.role == "user" for turn in answer):
        return [*system, *answer]
    if not any(turn.content.strip() for turn in prompt):
        return Fault("missing_prompt", "`chosen` is no dialogue, and there is no prompt beside it")
    return [*system, *_without_blank_answer(prompt), *answer]


def matches(role: str, values: Sequence[Any]) -> bool:
    """Whether `chosen` holds an answer, and not a label or a flag."""
    return role != "chosen" or any(isinstance(value, (str, list)) for value in values)


def _cell_turns(value: Any, role: str) -> Turns | Fault:
    return (parse_marked_text(value) if isinstance(value, str) else None) or parse_text_or_dialogue(value, role)


def _without_blank_answer(prompt: Turns) -> Turns:
    """A prompt without the blank "Assistant:" that marks where the answer goes."""
    return prompt[:-1] if prompt[-1].role == "assistant" and not prompt[-1].content.strip() else prompt


FORMAT = Format(
    name="preference",
    roles={
        "chosen": ("chosen", "chosen_response", "preferred"),
        "rejected": ("rejected", "rejected_response", "dispreferred"),
        "prompt": ("prompt", "question", "instruction", "input", "query"),
        "system": ("system", "system_prompt"),
    },
    required=("chosen",),
    convert=convert,
    matches=matches,
    meta=("rejected", "prompt"),
)
