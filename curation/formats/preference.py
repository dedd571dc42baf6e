"""Preference pairs: `chosen` is kept as the answer, `rejected` goes to `meta`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from siftune.curation.formats.answers import answer_turns
from siftune.curation.formats.cells import Columns, Row
from siftune.curation.formats.dialogues import prompt_turns
from siftune.curation.formats.faults import Fault
from siftune.curation.formats.format import SYSTEM_PROMPTS, Format
from siftune.curation.formats.marked_text import begins_with_mark, parse_marked_text
from siftune.curation.formats.turns import Turns, system_turn


def convert(row: Row, columns: Columns) -> Turns | Fault:
    """A chosen dialogue (marked text or messages), or a prompt and the chosen answer to it.

    The prompt may be a dialogue of several turns; an answer that it ends with gives way to the chosen one.
    """
    chosen, value = row.get(columns["chosen"]), row.get(columns["prompt"]) if "prompt" in columns else None
    answer = _marked_turns(chosen) or answer_turns(chosen)
    prompt = _marked_turns(value) or prompt_turns(value)
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
    if prompt[-1].role == "assistant" and answer:
        prompt = prompt[:-1]
    return [*(system if prompt[:1] != system else []), *prompt, *answer]


def matches(role: str, values: Sequence[Any]) -> bool:
    """Whether `chosen` holds an answer, and not a label or a flag."""
    return role != "chosen" or any(isinstance(value, (str, list, dict)) for value in values)


def _marked_turns(value: Any) -> Turns | None:
    return parse_marked_text(value) if isinstance(value, str) and begins_with_mark(value) else None


FORMAT = Format(
    name="preference",
    roles={
        "chosen": ("chosen", "chosen_response", "preferred"),
        "rejected": ("rejected", "rejected_response", "dispreferred"),
        "prompt": (
            "prompt",
            "question",
            "instruction",
            "input",
            "query",
            "conversations",
            "conversation",
            "messages",
            "history",
        ),
        "system": SYSTEM_PROMPTS,
    },
    required=("chosen",),
    convert=convert,
    matches=matches,
    meta=("rejected", "prompt"),
    answer="chosen",
)
