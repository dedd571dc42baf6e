"""Alpaca: an instruction, perhaps an input or a context, and an output; `history` holds earlier pairs of turns."""

from __future__ import annotations

from siftune.curation.formats.answers import single_turn
from siftune.curation.formats.cells import Columns, Row, cell_text, joined_cells
from siftune.curation.formats.faults import Fault
from siftune.curation.formats.format import ANSWER_KEYS, CONTEXTS, SYSTEM_PROMPTS, Format
from siftune.curation.formats.turns import Turn, Turns


def convert(row: Row, columns: Columns) -> Turns | Fault:
    """The instruction, the context and the input are one user turn, in this order; blank cells are left out."""
    prompt = joined_cells(row, columns, ["instruction", "context", "input"])
    turns = single_turn(row, columns, prompt=prompt, answer="output")
    history = row.get(columns["history"]) if "history" in columns else None
    if not history or isinstance(turns, Fault):
        return turns
    earlier = _history_turns(history)
    if isinstance(earlier, Fault):
        return earlier
    system = [turn for turn in turns if turn.role == "system"]
    return [*system, *earlier, *turns[len(system) :]]


def _history_turns(pairs: object) -> Turns | Fault:
    if not isinstance(pairs, list):
        return Fault("wrong_type", "history: a list of [question, answer] pairs is wanted")
    turns: Turns = []
    for pair in pairs:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            return Fault("wrong_type", "history: a [question, answer] pair is wanted")
        for role, value in zip(("user", "assistant"), pair, strict=True):
            text = cell_text(value)
            if isinstance(text, Fault):
                return Fault(text.reason, f"history: {text.detail}")
            turns.append(Turn(role, text or ""))
    return turns


FORMAT = Format(
    name="alpaca",
    roles={
        "instruction": ("instruction", "instructions"),
        "input": ("input", "inputs", "question", "query"),
        "output": (
            "output",
            "response",
            "answer",
            "completion",
            "outputs",
            "target",
            "targets",
            "solution",
            "demonstration",
            "completions",
            *ANSWER_KEYS,
        ),
        "context": CONTEXTS,
        "choices": ("choices", "options"),
        "system": SYSTEM_PROMPTS,
        "history": ("history",),
    },
    required=("instruction", "output"),
    convert=convert,
    meta=("choices",),
    answer="output",
)
