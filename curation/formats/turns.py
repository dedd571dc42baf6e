"""The turns of a dialogue, and which sequences of turns are a training example.

A format converts a row to turns; `repair_turns` then decides, for all formats alike, whether they are an example.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from siftune.curation.formats.cells import Columns, Row, cell_text, joined_cells
from siftune.curation.formats.faults import Fault

#: Names that data sets give to the four standard roles. Any other role (function_call, narrator …) stays as it is.
ROLES: Final[dict[str, str]] = {
    **dict.fromkeys(("user", "human", "prompter", "instruction", "question"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "chatgpt", "model", "ai", "bard", "bing", "answer"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "observation", "function", "function_response", "tool_response", "ipython"), "tool"),
}
_FUNCTION_CALL = "function_call"
_MODEL_ROLES = ("assistant", _FUNCTION_CALL)


class Turn(NamedTuple):
    """One message of a dialogue.

    Attributes:
        role: One of the standard roles, or the data set's own name for another.
        content: The text.
        fields: What the message had besides role and content (name, tool_calls …); None for nothing.
    """

    role: str
    content: str
    fields: Mapping[str, Any] | None = None


Turns = list[Turn]


def repair_turns(turns: Turns) -> tuple[Turns, list[str]] | Fault:
    """The turns of a training example and the repairs made to them, or the reason why they are no example.

    Repairs: consecutive user turns, and consecutive assistant turns, of plain text become one; turns after the last
    answer are left out; a function call at the end is the answer.
    """
    # The usual row has one user turn and one answer, which need no repair.
    if len(turns) == 2 and turns[0].role == "user" and turns[1].role == "assistant":
        complete = turns[0].content.strip() and turns[1].content.strip()
        return (turns, []) if complete else _fault_of(turns) or (turns, [])
    merged = _merge_consecutive(turns)
    if isinstance(merged, Fault):
        return merged
    turns, repairs = _trim_to_last_answer(merged, ["merged consecutive turns"] if len(merged) < len(turns) else [])
    return _fault_of(turns) or (turns, repairs)


def _fault_of(turns: Turns) -> Fault | None:
    prompts = [turn.content for turn in turns if turn.role == "user"]
    if not prompts:
        return Fault("bad_roles", f"no user turn; roles: {', '.join(turn.role for turn in turns) or 'none'}")
    if not any(content.strip() for content in prompts):
        return Fault("missing_prompt", "all user turns are blank")
    answers = [turn.content for turn in turns if turn.role == "assistant"]
    if not answers:
        return Fault("missing_answer", "no answer")
    if not all(content.strip() for content in answers):
        return Fault("empty_answer", "an answer is blank")
    return None


def _merge_consecutive(turns: Turns) -> Turns | Fault:
    merged: Turns = []
    for turn in turns:
        last = merged[-1] if merged else None
        if last is None or last.role != turn.role or turn.role not in ("user", "assistant"):
            merged.append(turn)
        elif not last.fields and not turn.fields:
            merged[-1] = Turn(turn.role, f"{last.content}\n\n{turn.content}")
        elif turn.role == "user":
            return Fault(
                "bad_roles", f"two user turns in a row that carry {', '.join(turn.fields or last.fields or ())}"
            )
        else:
            merged.append(turn)
    return merged


def _trim_to_last_answer(turns: Turns, repairs: list[str]) -> tuple[Turns, list[str]]:
    answers = [position for position, turn in enumerate(turns) if turn.role in _MODEL_ROLES]
    if not answers:
        return turns, repairs
    kept = turns[: answers[-1] + 1]
    if len(kept) < len(turns):
        repairs = [*repairs, f"left out {len(turns) - len(kept)} turn(s) after the last answer"]
    if kept[-1].role == _FUNCTION_CALL:
        fields = {**(kept[-1].fields or {}), "role": _FUNCTION_CALL}
        kept = [*kept[:-1], Turn("assistant", kept[-1].content, fields)]
        repairs = [*repairs, "the last function call is the answer"]
    return kept, repairs


def single_turn(row: Row, columns: Columns, *, prompt: str | Fault | None, answer: str) -> Turns | Fault:
    """A prompt and an answer as a dialogue.

    Args:
        row: One row.
        columns: Role to column.
        prompt: The text of the user turn, or why there is none.
        answer: The role whose cell is the answer.

    Returns:
        The system turn where the row has one, the user turn, and the assistant turn where the answer is not null.
    """
    if isinstance(prompt, Fault):
        return prompt
    if prompt is None:
        return Fault("missing_prompt", "no prompt")
    turns = system_turn(row, columns)
    if isinstance(turns, Fault):
        return turns
    reply = cell_text(row.get(columns[answer])) if answer in columns else None
    if isinstance(reply, Fault):
        return Fault(reply.reason, f"{columns[answer]}: {reply.detail}")
    turns.append(Turn("user", prompt))
    if reply is not None:
        turns.append(Turn("assistant", reply))
    return turns


def system_turn(row: Row, columns: Columns) -> Turns | Fault:
    """The cell of the role `system` as a list of one turn; no turn where it is blank or absent."""
    if "system" not in columns:
        return []
    text = joined_cells(row, columns, ["system"])
    if isinstance(text, Fault):
        return text
    return [Turn("system", text)] if text is not None else []
