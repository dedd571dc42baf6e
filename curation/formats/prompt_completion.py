"""Prompt and completion: texts, or lists of messages (TRL's conversational form)."""

from __future__ import annotations

from siftune.curation.formats.answers import answer_turns, single_turn
from siftune.curation.formats.cells import Columns, Row, joined_cells
from siftune.curation.formats.dialogues import encoded_turns, is_turn, prompt_turns
from siftune.curation.formats.faults import Fault
from siftune.curation.formats.format import ANSWER_KEYS, CONTEXTS, SYSTEM_PROMPTS, Format
from siftune.curation.formats.turns import Turns, system_turn


def convert(row: Row, columns: Columns) -> Turns | Fault:
    """The context and the prompt as user turn and the completion as assistant turn; messages are taken as they are."""
    prompt, completion = row.get(columns["prompt"]), row.get(columns["completion"])
    is_dialogue = isinstance(prompt, list) or (isinstance(prompt, dict) and is_turn(prompt))
    if not is_dialogue and not (isinstance(prompt, str) and encoded_turns(prompt)):
        text = joined_cells(row, columns, ["context", "prompt"])
        return single_turn(row, columns, prompt=text, answer="completion")
    turns = system_turn(row, columns)
    for part in (prompt_turns(prompt), answer_turns(completion)):
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
        "completion": (
            "completion",
            "response",
            "output",
            "answer",
            "completions",
            "targets",
            "target",
            "outputs",
            *ANSWER_KEYS,
        ),
        "context": CONTEXTS,
        "choices": ("choices", "options"),
        "system": SYSTEM_PROMPTS,
    },
    required=("prompt", "completion"),
    convert=convert,
    meta=("choices",),
    answer="completion",
)
