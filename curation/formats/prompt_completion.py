"""Prompt and completion: texts, or lists of messages (TRL's conversational form)."""

from __future__ import annotations

from siftune.curation.formats.conversation import Columns, Fault, Format, Row, Turns, joined, single_turn, system_turn
from siftune.curation.formats.dialogues import said


def convert(row: Row, columns: Columns) -> Turns | Fault:
    """The prompt as user turn and the completion as assistant turn; lists of messages are taken as they are."""
    prompt, completion = row.get(columns["prompt"]), row.get(columns["completion"])
    if not isinstance(prompt, list) and not isinstance(completion, list):
        return single_turn(row, columns, joined(row, columns, ["prompt"]), "completion")
    turns = system_turn(row, columns)
    for part in (said(prompt, "user"), said(completion, "assistant")):
        if isinstance(turns, Fault):
            return turns
        if isinstance(part, Fault):
            return part
        turns = [*turns, *part]
    return turns


FORMAT = Format(
    name="prompt_completion",
    roles={
        "prompt": ("prompt", "prompts", "inputs", "input"),
        "completion": ("completion", "response", "output", "answer", "completions", "targets", "target", "outputs"),
        "system": ("system", "system_prompt"),
    },
    required=("prompt", "completion"),
    convert=convert,
)
