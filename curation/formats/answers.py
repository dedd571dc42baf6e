"""The cell of an answer as turns: a text, one turn, the turns of a dialogue, or several candidates."""

from __future__ import annotations

from typing import Any

from siftune.curation.formats.cells import Columns, Row, cell_text, is_blank
from siftune.curation.formats.choices import first_answer, parse_choices, with_choices
from siftune.curation.formats.dialogues import encoded_turns, inner_dialogue, is_turn, parse_dialogue
from siftune.curation.formats.faults import Fault
from siftune.curation.formats.turns import ROLES, Turn, Turns, system_turn

#: Keys under which samplers write the text of a candidate.
_TEXT_KEYS = ("text", "content", "value", "generated_text", "completion", "response", "answer", "output", "message")


def answer_turns(value: Any) -> Turns | Fault:
    """The turns of an answer's cell; null is no turn.

    A list is a dialogue only where its items are turns and one of them is not the model's. Any other list holds
    candidates, of which the first that is not blank is the answer.
    """
    if isinstance(value, str):
        turns = parse_dialogue(encoded_turns(value) or [])
        if isinstance(turns, Fault) or any(turn.role == "assistant" for turn in turns):
            return turns
        return [Turn("assistant", value)]  # a text about turns of others, not the model's own
    if isinstance(value, dict) and is_turn(value):
        return parse_dialogue([value])
    if _is_dialogue(value):
        return parse_dialogue(value)
    if isinstance(value, list):
        return answer_turns(next((item for item in value if not _is_blank(item)), None if not value else value[0]))
    if isinstance(value, dict):
        if (dialogue := inner_dialogue(value)) is not None:
            return parse_dialogue(dialogue)
        if value.get("text") == []:  # SQuAD's question without an answer
            return []
        answer = first_answer(value)
        value = answer if not isinstance(answer, dict) else next((v for k in _TEXT_KEYS if (v := value.get(k))), value)
        if isinstance(value, list) or (isinstance(value, dict) and is_turn(value)):
            return answer_turns(value)
    text = cell_text(value)
    if isinstance(text, Fault):
        return text
    return [] if text is None else [Turn("assistant", text)]


def candidates(value: Any) -> int:
    """How many answers the cell of an answer holds."""
    if isinstance(value, dict):
        value = value.get("text")
    if not isinstance(value, list) or _is_dialogue(value):
        return 1
    return sum(not _is_blank(item) for item in value)


def single_turn(row: Row, columns: Columns, *, prompt: str | Fault | None, answer: str) -> Turns | Fault:
    """A prompt and an answer as a dialogue.

    Args:
        row: One row.
        columns: Role to column.
        prompt: The text of the user turn, or why there is none.
        answer: The role whose cell is the answer.

    Returns:
        The system turn where the row has one, the user turn, and the answer's turns where it is not null.
    """
    if isinstance(prompt, Fault):
        return prompt
    if prompt is None:
        return Fault("missing_prompt", "no prompt")
    turns = system_turn(row, columns)
    if isinstance(turns, Fault):
        return turns
    value = row.get(columns[answer]) if answer in columns else None
    if "choices" in columns:
        prompt, value = _with_choices(prompt, value, row.get(columns["choices"]))
    reply = answer_turns(value)
    if isinstance(reply, Fault):
        return Fault(reply.reason, f"{columns[answer]}: {reply.detail}")
    return [*turns, Turn("user", prompt), *reply]


def _with_choices(prompt: str, answer: Any, cell: Any) -> tuple[str, Any]:
    """The prompt and the answer with the choices of a cell, unless each of them ends a line of the prompt already."""
    choices = parse_choices(cell)
    if not choices:
        is_text = isinstance(cell, str) and not is_blank(cell) and cell.strip() not in prompt
        return (f"{prompt}\n\n{cell.strip()}" if is_text else prompt), answer
    lines = {line.strip() for line in prompt.split("\n")}
    are_listed = all(any(line.endswith(choice.text.strip()) for line in lines) for choice in choices)
    if are_listed and len(lines) > len(choices):
        return prompt, answer
    first = first_answer(answer)
    prompt, named = with_choices(prompt, first, choices)
    return prompt, answer if named is first else named


def is_read_whole(value: Any) -> bool:
    """Whether the cell of an answer is in the messages with everything that it holds."""
    return not isinstance(value, (list, dict)) or _is_dialogue(value) or (isinstance(value, dict) and is_turn(value))


def _is_dialogue(value: Any) -> bool:
    """Whether all items are turns; of several turns of the model and no other, each is a candidate."""
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) and is_turn(item) for item in value):
        return False
    roles = {ROLES.get(str(item.get("role") or item.get("from")).strip().lower()) for item in value}
    return len(value) == 1 or roles != {"assistant"}


def _is_blank(item: Any) -> bool:
    return item is None or item in ("", [], {}) or (isinstance(item, str) and not item.strip())
