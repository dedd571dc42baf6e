"""Question and answer, perhaps about a context, perhaps with choices (MMLU) or a SQuAD-like `answers` object."""

from __future__ import annotations

from siftune.curation.formats.answers import single_turn
from siftune.curation.formats.cells import Columns, Row, joined_cells
from siftune.curation.formats.faults import Fault
from siftune.curation.formats.format import ANSWER_KEYS, PASSAGES, SYSTEM_PROMPTS, Format
from siftune.curation.formats.turns import Turns


def convert(row: Row, columns: Columns) -> Turns | Fault:
    """Context and question are the user turn; choices follow it as lettered lines, and the answer is "B. its text"."""
    return single_turn(row, columns, prompt=joined_cells(row, columns, ["context", "question"]), answer="answer")


FORMAT = Format(
    name="question_answer",
    roles={
        "question": ("question", "query", "problem", "q", "questions", "question_stem", "stem", "ctx", "goal"),
        "answer": (
            "solution",
            "answer",
            "response",
            "output",
            *ANSWER_KEYS,
            "outputs",
            "completions",
            "completion",
            "correct_answer",
            "correct_option",
            "best_answer",
            "cop",
            "a",
        ),
        "context": ("context", "body", *PASSAGES),
        "choices": ("choices", "options", "endings"),
        "system": SYSTEM_PROMPTS,
    },
    required=("question", "answer"),
    convert=convert,
    meta=("choices",),
    answer="answer",
)
