"""The turns of a dialogue, and which sequences of turns are a training example.

A format converts a row to turns; `repair_turns` then decides, for all formats alike, whether they are an example.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from siftune.curation.formats.cells import Columns, Row, joined_cells, json_text
from siftune.curation.formats.faults import Fault

#: Names that data sets give to the four standard roles. Any other role (function_call, narrator …) stays as it is.
ROLES: Final[dict[str, str]] = {
    **dict.fromkeys(("user", "human", "prompter", "instruction", "question"), "user"),
    **dict.fromkeys(
        ("assistant", "gpt", "bot", "chatbot", "chatgpt", "model", "ai", "bard", "bing", "answer"), "assistant"
    ),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "observation", "function", "function_response", "tool_response", "ipython"), "tool"),
}
_FUNCTION_CALL = "function_call"
_MODEL_ROLES = ("assistant", _FUNCTION_CALL)
#: Roles that need no mapping: the standard ones, and the call that LLaMA-Factory writes as a turn of its own.
KNOWN_ROLES: Final = frozenset((*ROLES.values(), _FUNCTION_CALL))
#: Keys of a turn that say whether it is trained: with a false value (OpenAI's `weight: 0`), or with a true one.
_TRAINED_KEYS = (
    "weight", "weights", "loss_weight", "loss_mask", "train", "trainable", "training", "train_on_turn", "loss",
    "train_loss", "compute_loss",
)  # fmt: skip
_MASKED_KEYS = ("masked", "mask", "ignore", "ignored", "ignore_loss", "no_loss", "skip")
#: Keys of a turn that may hold an object with such marks.
_NESTED_KEYS = ("metadata", "meta", "extra", "extra_info")
#: Keys of a turn that say whether it is trained.
MARK_KEYS: Final = frozenset((*_TRAINED_KEYS, *_MASKED_KEYS))
_FALSE_TEXTS = ("false", "0", "0.0", "no", "off")
_TRUE_TEXTS = ("true", "1", "1.0", "yes", "on")


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


def is_trained(fields: Mapping[str, Any] | None) -> bool:
    """Whether a turn may be trained: false where its fields mark it (`weight: 0`, `train: false`, `masked: true`).

    Marks in an object of a turn (`metadata: {weight: 0}`) count as well.
    """
    if not fields:
        return True
    nested = [fields[key] for key in _NESTED_KEYS if isinstance(fields.get(key), Mapping)]
    for marks in (fields, *nested):
        if any(_as_flag(marks.get(key)) is False for key in _TRAINED_KEYS):
            return False
        if any(_as_flag(marks.get(key)) is True for key in _MASKED_KEYS):
            return False
    return True


def _as_flag(value: Any) -> bool | None:
    if isinstance(value, (bool, int, float)):
        return bool(value)
    text = value.strip().lower() if isinstance(value, str) else ""
    return False if text in _FALSE_TEXTS else True if text in _TRUE_TEXTS else None


def repair_turns(turns: Turns) -> tuple[Turns, list[str]] | Fault:
    """The turns of a training example and the repairs made to them, or the reason why they are no example.

    Repairs: consecutive user turns, and consecutive assistant turns, of plain text become one; turns after the last
    answer are left out; a function call at the end is the answer.
    """
    # The usual row has one user turn and one answer, which need no repair.
    if len(turns) == 2 and turns[0].role == "user" and turns[1].role == "assistant" and not turns[1].fields:
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
        roles = ", ".join(turn.role for turn in turns) or "none"
        return Fault("bad_roles", f"no user turn; roles: {roles}{_mapping_hint(turns)}")
    if not any(content.strip() for content in prompts):
        return Fault("missing_prompt", "all user turns are blank")
    answers = [turn.content for turn in turns if turn.role == "assistant"]
    if not answers:
        return Fault("missing_answer", f"no answer{_mapping_hint(turns)}")
    if not all(content.strip() for content in answers):
        return Fault("empty_answer", "an answer is blank")
    if not any(is_trained(turn.fields) for turn in turns if turn.role == "assistant"):
        return Fault("missing_answer", "all answers are marked as not to be trained")
    return None


def _mapping_hint(turns: Turns) -> str:
    """What to write where a dialogue has roles that nobody knows."""
    unknown = list(dict.fromkeys(turn.role for turn in turns if turn.role not in KNOWN_ROLES))
    if not unknown:
        return ""
    standard = [role for role in ("user", "assistant") if all(turn.role != role for turn in turns)] or ["tool"]
    example = ", ".join(
        f"{json_text(role) if not role.isidentifier() else role}: {meaning}"
        for role, meaning in zip(unknown, [*standard, "tool"], strict=False)
    )
    return f"; unknown roles: {', '.join(unknown)}. Map them in the recipe's source, such as `roles: {{{example}}}`"


def _merge_consecutive(turns: Turns) -> Turns | Fault:
    merged: Turns = []
    for turn in turns:
        last = merged[-1] if merged else None
        if last is None or last.role != turn.role or turn.role not in ("user", "assistant"):
            merged.append(turn)
        elif not (carried := _carried(last) | _carried(turn)) and (
            turn.role == "user" or is_trained(last.fields) == is_trained(turn.fields)
        ):
            fields = turn.fields if turn.role == "assistant" else None
            merged[-1] = Turn(turn.role, f"{last.content}\n\n{turn.content}", fields)
        elif turn.role == "user":
            return Fault("bad_roles", f"two user turns in a row that carry {', '.join(sorted(carried))}")
        else:
            merged.append(turn)
    return merged


def _carried(turn: Turn) -> set[str]:
    """What a turn has besides its text and the marks of training, which say nothing of a user's turn."""
    return set(turn.fields or ()) - MARK_KEYS


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


def system_turn(row: Row, columns: Columns) -> Turns | Fault:
    """The cell of the role `system` as a list of one turn; no turn where it is blank or absent."""
    if "system" not in columns:
        return []
    text = joined_cells(row, columns, ["system"])
    if isinstance(text, Fault):
        return text
    return [Turn("system", text)] if text is not None else []
