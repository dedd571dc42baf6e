"""Question and answer, perhaps about a context, perhaps with choices (MMLU) or a SQuAD-like `answers` object."""

from __future__ import annotations

import string
from typing import Any

from siftune.curation.formats.cells import Columns, Row, joined_cells, json_text
from siftune.curation.formats.choices import choice_index, first_answer
from siftune.curation.formats.faults import Fault
from siftune.curation.formats.format import Format
from siftune.curation.formats.turns import Turns, single_turn


def convert(row: Row, columns: Columns) -> Turns | Fault:
    """Context and question are the user turn; choices follow it as lettered lines, and the answer is "B. its text"."""
    prompt = joined_cells(row, columns, ["context", "question"])
    answer = first_answer(row.get(columns["answer"]))
    if isinstance(prompt, str) and "choices" in columns:
        choices = row.get(columns["choices"])
        if isinstance(choices, list) and choices:
            lines = [
                f"{letter}. {_choice_text(choice)}"
                for letter, choice in zip(string.ascii_uppercase, choices, strict=False)
            ]
            prompt = "\n".join([f"{prompt}\n", *lines])
            index = choice_index(answer, choices)
            answer = answer if index is None else lines[index]
    return single_turn({**row, columns["answer"]: answer}, columns, prompt=prompt, answer="answer")


def _choice_text(choice: Any) -> str:
    return choice if isinstance(choice, str) else json_text(choice)


FORMAT = Format(
    name="question_answer",
    roles={
        "question": ("question", "query", "problem", "q", "questions"),
        "answer": ("solution", "answer", "response", "output", "answers", "a"),
        "context": ("context", "passage", "body", "story"),
        "choices": ("choices", "options"),
        "system": ("system", "system_prompt"),
    },
    required=("question", "answer"),
    convert=convert,
    meta=("choices",),
    meta_lists=("answer",),
)
