"""Items of a benchmark: a prompt, perhaps an answer. For references only; nothing here can be trained on."""

from __future__ import annotations

from typing import Any

from siftune.curation.formats.cells import Columns, Row, cell_text, joined_cells
from siftune.curation.formats.choices import choice_index, first_answer, parse_choices
from siftune.curation.formats.faults import Fault
from siftune.curation.formats.format import Format
from siftune.curation.formats.turns import Turn, Turns


def convert(row: Row, columns: Columns) -> Turns | Fault:
    """The prompt (several turns are joined) and the answer; of choices, the text of the right one, which carries the
    texts of the wrong ones in its field `distractors`."""
    prompt = _prompt_text(row, columns)
    if isinstance(prompt, Fault):
        return prompt
    answer = first_answer(row.get(columns["answer"])) if "answer" in columns else None
    choices = parse_choices(row.get(columns["choices"])) if "choices" in columns else []
    index = choice_index(answer, choices)
    text = cell_text(answer if index is None else choices[index].text)
    if isinstance(text, Fault):  # the prompt alone is searched for as well
        text = None
    wrong = [choice.text for number, choice in enumerate(choices) if number != index]
    fields = {"distractors": wrong} if index is not None and wrong else None
    return [*([Turn("user", prompt)] if prompt else []), *([Turn("assistant", text, fields)] if text else [])]


def _prompt_text(row: Row, columns: Columns) -> str | Fault | None:
    value = row.get(columns["prompt"])
    if not isinstance(value, list):
        return joined_cells(row, columns, ["context", "prompt", "input"])
    texts = [_turn_text(turn) for turn in value]
    if any(text is None for text in texts):
        return Fault("wrong_type", f"{columns['prompt']}: a list of turns is a list of texts or of {{content}}")
    return "\n\n".join(text for text in texts if text)


def _turn_text(turn: Any) -> str | None:
    text = turn.get("content") if isinstance(turn, dict) else turn
    return text if isinstance(text, str) else None


FORMAT = Format(
    name="text",
    roles={
        "prompt": ("prompt", "question", "problem", "instruction", "query", "text", "turns"),
        "answer": ("canonical_solution", "solution", "answer", "output", "completion", "response", "code", "answers"),
        "context": ("context", "passage", "body"),
        "input": ("input",),
        "choices": ("choices", "options"),
    },
    required=("prompt",),
    convert=convert,
    answer="answer",
)
