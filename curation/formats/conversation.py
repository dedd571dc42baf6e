"""What all formats speak: turns, faults, cells as text, and the repair of a dialogue.

A format turns a row into turns; `settle` then decides, for every format alike, whether they are a training example.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import orjson

Reason = Literal[
    "bad_json",
    "bad_encoding",
    "truncated",
    "ragged_row",
    "not_an_object",
    "missing_prompt",
    "missing_answer",
    "empty_answer",
    "wrong_type",
    "bad_roles",
    "nul_byte",
    "lone_surrogate",
    "oversized_cell",
]

#: Why a row is quarantined: the one list of reasons, with what each of them means.
REASONS: Final[dict[Reason, str]] = {
    "bad_json": "the row is not JSON",
    "bad_encoding": "the row is not UTF-8",
    "truncated": "the file was cut in the middle of the row",
    "ragged_row": "a CSV record that has more or fewer fields than the header, or is not CSV",
    "not_an_object": "the row is JSON, but not an object with named columns",
    "missing_prompt": "no question, instruction or user turn, or only blanks",
    "missing_answer": "no answer column, null in it, or no assistant turn",
    "empty_answer": "an answer of nothing but blanks",
    "wrong_type": "a list or an object where a text should be, or turns that are not turns",
    "bad_roles": "a dialogue without a user turn, a turn without a role, or two user turns that cannot be merged",
    "nul_byte": "a NUL character in the row",
    "lone_surrogate": "half of a surrogate pair (such as \\ud800) in the row: no UTF-8 text can hold it",
    "oversized_cell": "a cell of 10 MB or more",
}

#: Bytes of UTF-8; a cell this large is a fault of an export, not an example.
MAX_CELL = 10_000_000

#: Names that data sets give to the four standard roles. Any other role (function_call, narrator …) stays as it is.
ROLES: Final[dict[str, str]] = {
    **dict.fromkeys(("user", "human", "prompter", "instruction", "question"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "chatgpt", "model", "ai", "bard", "bing", "answer"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "observation", "function", "function_response", "tool_response", "ipython"), "tool"),
}
_CALL = "function_call"
_SPOKEN_BY_MODEL = ("assistant", _CALL)

Row = dict[str, Any]
Columns = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a row cannot be used; `raw` is the row as found, when it could not be parsed."""

    reason: Reason
    detail: str = ""
    raw: str = ""


class Turn(NamedTuple):
    """One message. `fields` is what it had besides role and content (name, tool_calls …); None for nothing."""

    role: str
    content: str
    fields: Mapping[str, Any] | None = None


Turns = list[Turn]


@dataclass(frozen=True)
class Format:
    """A way to write examples.

    Attributes:
        name: As in the recipe.
        roles: What its columns may be, each with the usual names of such a column, the most usual first.
        required: The roles without which a row cannot be read.
        convert: A row and its `role: column` mapping to turns; blanks and absences are left to `settle`.
        matches: Whether these values of a required column look like this format; None: any value does.
        meta: Roles whose column stays in `meta` although it was read.
        meta_lists: The same, for cells that are lists or objects and of which only a part was read.
    """

    name: str
    roles: Mapping[str, tuple[str, ...]]
    required: tuple[str, ...]
    convert: Callable[[Row, Columns], Turns | Fault]
    matches: Callable[[str, Sequence[Any]], bool] | None = None
    meta: tuple[str, ...] = ()
    meta_lists: tuple[str, ...] = ()


def settle(turns: Turns) -> tuple[Turns, list[str]] | Fault:
    """The turns of a training example and what was repaired, or why they are none.

    Repairs: consecutive user turns, and consecutive assistant turns, of plain text become one; turns after the last
    answer are left out; a function call that nothing follows is the answer.
    """
    if len(turns) == 2 and turns[0].role == "user" and turns[1].role == "assistant":
        fine = turns[0].content.strip() and turns[1].content.strip()  # the usual row, decided without a detour
        return (turns, []) if fine else _fault_of(turns) or (turns, [])
    merged = _merge(turns)
    if isinstance(merged, Fault):
        return merged
    turns, repairs = _trim(merged, ["merged consecutive turns"] if len(merged) < len(turns) else [])
    return _fault_of(turns) or (turns, repairs)


def _fault_of(turns: Turns) -> Fault | None:
    users = [turn.content for turn in turns if turn.role == "user"]
    if not users:
        return Fault("bad_roles", f"no user turn; roles: {', '.join(turn.role for turn in turns) or 'none'}")
    if not any(content.strip() for content in users):
        return Fault("missing_prompt", "all user turns are blank")
    answers = [turn.content for turn in turns if turn.role == "assistant"]
    if not answers:
        return Fault("missing_answer", "no answer")
    if not all(content.strip() for content in answers):
        return Fault("empty_answer", "an answer is blank")
    return None


def _merge(turns: Turns) -> Turns | Fault:
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


def _trim(turns: Turns, repairs: list[str]) -> tuple[Turns, list[str]]:
    spoken = [position for position, turn in enumerate(turns) if turn.role in _SPOKEN_BY_MODEL]
    if not spoken:
        return turns, repairs
    kept = turns[: spoken[-1] + 1]
    if len(kept) < len(turns):
        repairs = [*repairs, f"left out {len(turns) - len(kept)} turn(s) after the last answer"]
    if kept[-1].role == _CALL:
        kept = [*kept[:-1], Turn("assistant", kept[-1].content, {**(kept[-1].fields or {}), "role": _CALL})]
        repairs = [*repairs, "the last function call is the answer"]
    return kept, repairs


def cell(value: Any) -> str | Fault | None:
    """A cell as text: None for null, the JSON text of a number or a boolean; lists and objects are a fault."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, (bool, int, float)):
        return json_text(value)
    if isinstance(value, (list, tuple, dict, bytes)):
        return Fault("wrong_type", f"{_called(value)} where a text should be")
    return str(value)


def joined(row: Row, columns: Columns, roles: Sequence[str]) -> str | Fault | None:
    """The cells of `roles` that are there and not blank, as one text; None when there is none."""
    texts = []
    for role in roles:
        if role not in columns:
            continue
        text = cell(row.get(columns[role]))
        if isinstance(text, Fault):
            return Fault(text.reason, f"{columns[role]}: {text.detail}")
        if text is not None and text.strip() and text.strip() != "<noinput>":
            texts.append(text)
    return "\n\n".join(texts) if texts else None


def single_turn(row: Row, columns: Columns, prompt: str | Fault | None, answer: str) -> Turns | Fault:
    """`prompt` and the cell of the role `answer` as a dialogue, after the cell of the role `system` if it has one."""
    if isinstance(prompt, Fault):
        return prompt
    if prompt is None:
        return Fault("missing_prompt", "no prompt")
    turns = system_turn(row, columns)
    if isinstance(turns, Fault):
        return turns
    reply = cell(row.get(columns[answer])) if answer in columns else None
    if isinstance(reply, Fault):
        return Fault(reply.reason, f"{columns[answer]}: {reply.detail}")
    turns.append(Turn("user", prompt))
    if reply is not None:
        turns.append(Turn("assistant", reply))
    return turns


def system_turn(row: Row, columns: Columns) -> Turns | Fault:
    """The cell of the role `system` as a turn, or no turn where it is blank or absent."""
    if "system" not in columns:
        return []
    text = joined(row, columns, ["system"])
    if isinstance(text, Fault):
        return text
    return [Turn("system", text)] if text is not None else []


def json_text(value: Any) -> str:
    """JSON of any cell, keys sorted, so that equal values are equal texts. What JSON has no word for becomes text.

    Raises `RecursionError` for more than 254 levels of nesting (orjson's limit), whatever Python's own limit is.
    """
    try:
        return orjson.dumps(value, default=_in_words, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS).decode()
    except orjson.JSONEncodeError as fault:
        if "ecursion" in str(fault):
            raise RecursionError("nested too deeply") from None
        # lone surrogates and integers beyond 64 bits: Python can
        return json.dumps(value, default=_in_words, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _in_words(value: Any) -> Any:
    return value.hex() if isinstance(value, (bytes, bytearray)) else str(value)


def _called(value: object) -> str:
    return {"dict": "an object", "list": "a list", "tuple": "a list"}.get(type(value).__name__, type(value).__name__)
