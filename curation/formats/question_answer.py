"""Question and answer, perhaps about a context, perhaps with choices (MMLU) or a SQuAD-like `answers` object."""

from __future__ import annotations

import string
from typing import Any

from siftune.curation.formats.choices import chosen, first_answer
from siftune.curation.formats.conversation import Columns, Fault, Format, Row, Turns, joined, json_text, single_turn


def convert(row: Row, columns: Columns) -> Turns | Fault:
    """Context and question are the user turn; choices follow it as lettered lines, and the answer is "B. its text"."""
    prompt = joined(row, columns, ["context", "question"])
    answer = first_answer(row.get(columns["answer"]))
    if isinstance(prompt, str) and "choices" in columns:
        choices = row.get(columns["choices"])
        if isinstance(choices, list) and choices:
            lines = [
                f"{letter}. {_text(choice)}" for letter, choice in zip(string.ascii_uppercase, choices, strict=False)
            ]
            prompt = "\n".join([f"{prompt}\n", *lines])
            place = chosen(answer, choices)
            answer = answer if place is None else lines[place]
    return single_turn({**row, columns["answer"]: answer}, columns, prompt, "answer")


def _text(choice: Any) -> str:
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
