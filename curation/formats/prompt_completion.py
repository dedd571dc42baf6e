"""Prompt and completion: texts, or lists of messages (TRL's conversational form)."""

from __future__ import annotations

from siftune.curation.formats.cells import Columns, Row, joined_cells
from siftune.curation.formats.dialogues import parse_text_or_dialogue
from siftune.curation.formats.faults import Fault
from siftune.curation.formats.format import Format
from siftune.curation.formats.turns import Turns, single_turn, system_turn


def convert(row: Row, columns: Columns) -> Turns | Fault:
    """The prompt as user turn and the completion as assistant turn; lists of messages are taken as they are."""
    prompt, completion = row.get(columns["prompt"]), row.get(columns["completion"])
    if not isinstance(prompt, list) and not isinstance(completion, list):
        return single_turn(row, columns, prompt=joined_cells(row, columns, ["prompt"]), answer="completion")
    turns = system_turn(row, columns)
    for part in (parse_text_or_dialogue(prompt, "user"), parse_text_or_dialogue(completion, "assistant")):
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
