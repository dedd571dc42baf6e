"""Dialogues as data sets write them: lists of turns, of pairs or of texts, and the JSON or Python text of these."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from siftune.curation.formats.cells import Columns, Row, block_text, cell_text, decoded, json_text, without_nulls
from siftune.curation.formats.faults import Fault
from siftune.curation.formats.turns import MARK_KEYS, ROLES, Turn, Turns, system_turn

#: Keys of a turn, the most usual first.
ROLE_KEYS = ("role", "from", "speaker", "author", "sender")
CONTENT_KEYS = ("content", "value", "text", "parts", "message", "utterance")
_THOUGHT_TYPES = ("thinking", "reasoning")
#: Columns beside a dialogue with a number for each turn or answer: false or 0 means that it is not trained.
_LISTS_OF_MARKS = ("weights", "loss_weights", "loss_mask", "train_mask", "train_on_turns")
#: Two turns in one object, as Capybara ({input, output}) and MOSS ({human, assistant}) have them.
_PAIR_KEYS = (("input", "output"), ("human", "assistant"), ("user", "assistant"), ("question", "answer"))
#: How the text of a list of objects begins, or that of one turn.
_ENCODED_TURNS = re.compile(r"""\s*(?:(?:\[|array\(\s*\[)\s*\{|\{\s*["'](?:role|from|content|value)["'])""")
_KINDS = {str: "texts", int: "numbers", float: "numbers", bool: "booleans", list: "lists", type(None): "nulls"}


def is_dialogue(value: Any) -> bool:
    """Whether `value` looks like a dialogue that `parse_dialogue` can read."""
    items = _items(value)
    if not items:
        return False
    if all(isinstance(item, str) for item in items):
        return len(items) > 1 and not isinstance(value, str)
    return all(isinstance(item, dict) and (_turn_keys(item) or _pair_keys(item)) is not None for item in items)


def parse_dialogue(value: Any) -> Turns | Fault:
    """The turns of a dialogue, in the standard roles where they have one.

    Accepts a list of {role, content} or {from, value}, of {input, output} pairs, of texts (user first), the JSON
    text of such a list, and a struct of lists (how `datasets` stored sequences of objects).
    """
    items = _items(value)
    if items is None:
        return Fault("wrong_type", "a dialogue is a list of turns")
    turns: Turns = []
    for position, item in enumerate(items):
        parsed = _parse_item(item, position)
        if isinstance(parsed, Fault):
            return Fault(parsed.reason, f"turn {position}: {parsed.detail}")
        turns.extend(parsed)
    return turns


def dialogue_in_cell(row: Row, columns: Columns, role: str) -> Turns | Fault:
    """The dialogue in the cell of `role`; a `system` cell comes first, unless the dialogue opens with the same text."""
    value = row.get(columns[role])
    if not value:
        return Fault("missing_prompt", "no turns")
    turns = _with_marks(parse_dialogue(value), row)
    system = system_turn(row, columns)
    if isinstance(turns, Fault):
        return turns
    if isinstance(system, Fault):
        return system
    return turns if system and turns[:1] == system else [*system, *turns]


def _with_marks(turns: Turns | Fault, row: Row) -> Turns | Fault:
    """The turns with the marks of a list beside them (`weights: [0, 1]`), one for each turn or for each answer."""
    if isinstance(turns, Fault):
        return turns
    for name in _LISTS_OF_MARKS:
        marks = row.get(name)
        if not isinstance(marks, list) or not all(isinstance(mark, (bool, int, float)) for mark in marks):
            continue
        answers = [position for position, turn in enumerate(turns) if turn.role == "assistant"]
        marked = range(len(turns)) if len(marks) == len(turns) else answers
        if len(marked) != len(marks):
            return Fault(
                "wrong_type", f"{name}: {len(marks)} marks for {len(turns)} turns, {len(answers)} of them answers"
            )
        for position, mark in zip(marked, marks, strict=True):
            turn = turns[position]
            turns[position] = turn._replace(fields={**(turn.fields or {}), "weight": mark})
    return turns


def prompt_turns(value: Any) -> Turns | Fault:
    """The turns of a prompt's cell: of a dialogue or of one turn, or one user turn for a text; null is no turn."""
    if isinstance(value, str):
        turns = encoded_turns(value)
        return [Turn("user", value)] if turns is None else parse_dialogue(turns)
    if isinstance(value, list):
        return parse_dialogue(value)
    if isinstance(value, dict) and is_turn(value):
        return parse_dialogue([value])
    if isinstance(value, dict) and (dialogue := inner_dialogue(value)) is not None:
        return parse_dialogue(dialogue)
    text = block_text(value) if isinstance(value, dict) else cell_text(value)
    if isinstance(text, Fault):
        return text
    return [] if text is None else [Turn("user", text)]


def inner_dialogue(value: Mapping[str, Any]) -> list[Any] | None:
    """The dialogue in an object that holds one ({"messages": […]}); None for other objects."""
    dialogue = next((value[name] for name in ("messages", "conversations") if name in value), None)
    return dialogue if isinstance(dialogue, list) and is_dialogue(dialogue) else None


def is_turn(item: Mapping[str, Any]) -> bool:
    """Whether an object has a role and a content."""
    return _turn_keys(item) is not None


def encoded_turns(text: str) -> list[Any] | None:
    """The turns that a text holds as JSON or as a Python literal; None for any other text, such as an answer that is
    a list of objects with unknown roles."""
    if not _ENCODED_TURNS.match(text):
        return None
    items = decoded(text)
    items = [items] if isinstance(items, dict) else items
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        return None
    keys = [_turn_keys(item) for item in items]
    roles = [str(item[key[0]]).strip().lower() for item, key in zip(items, keys, strict=True) if key is not None]
    return items if len(roles) == len(items) and all(role in ROLES for role in roles) else None


def describe(value: Any) -> str:
    """What a cell holds that is no dialogue, for messages."""
    if isinstance(value, str):
        return f"a text ({value.strip()[:40]!r})"
    if isinstance(value, dict):
        return f"an object with the keys {', '.join(map(str, list(value)[:6])) or '(none)'}"
    if isinstance(value, (list, tuple)):
        if not value:
            return "an empty list"
        if isinstance(value[0], dict):
            return f"a list of objects with the keys {', '.join(map(str, list(value[0])[:6])) or '(none)'}"
        return f"a list of {_KINDS.get(type(value[0]), type(value[0]).__name__)}"
    return f"a {_KINDS.get(type(value), type(value).__name__).rstrip('s')} ({value})"


def _items(value: Any) -> Sequence[Any] | None:
    if isinstance(value, str) and (value.lstrip()[:1] == "[" or value.lstrip()[:6] == "array("):
        value = decoded(value)
    if isinstance(value, dict) and (_turn_keys(value) is not None) and not _is_struct_of_lists(value):
        return [value]
    if isinstance(value, dict) and _is_struct_of_lists(value):
        columns = {name: column for name, column in value.items() if column is not None}
        lengths = {len(column) for column in columns.values()}
        if len(lengths) != 1:
            return None
        return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    if not isinstance(value, (list, tuple)):
        return None
    # A map of Arrow is a list of pairs.
    return [_turn_of_pair(dict(item) if _is_map(item) else item) for item in value]


def _turn_of_pair(item: Any) -> Any:
    """{"user": text} and ["user", text] as a turn; anything else as it is."""
    if isinstance(item, dict) and len(item) == 1:
        ((role, content),) = item.items()
    elif isinstance(item, list) and len(item) == 2:
        role, content = item
    else:
        return item
    is_turn_of_role = isinstance(role, str) and isinstance(content, str) and role.strip().lower() in ROLES
    return {"role": role, "content": content} if is_turn_of_role else item


def _is_struct_of_lists(value: Mapping[str, Any]) -> bool:
    columns = [column for column in value.values() if column is not None]
    return bool(columns) and all(isinstance(column, list) for column in columns) and set(value) != {"parts"}


def _is_map(item: Any) -> bool:
    return (
        isinstance(item, list)
        and bool(item)
        and all(isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) for pair in item)
    )


def _parse_item(item: Any, position: int) -> Turns | Fault:
    if isinstance(item, str):
        return [Turn("assistant" if position % 2 else "user", item)]
    if not isinstance(item, dict):
        return Fault("wrong_type", "not an object")
    keys = _turn_keys(item)
    if keys is not None:
        return _parse_turn(item, *keys)
    pair = _pair_keys(item)
    if pair is None:
        return Fault("bad_roles", f"no role; keys: {', '.join(map(str, item))}")
    texts = [cell_text(item[key]) for key in pair]
    fault = next((text for text in texts if isinstance(text, Fault)), None)
    if fault is not None:
        return fault
    fields = {key: value for key, value in item.items() if key not in pair and value is not None}
    marks = {key: value for key, value in fields.items() if key in MARK_KEYS}
    return [Turn("user", str(texts[0] or ""), fields or None), Turn("assistant", str(texts[1] or ""), marks or None)]


def _parse_turn(item: Mapping[str, Any], role_key: str, content_key: str) -> Turns | Fault:
    role = item[role_key]
    if isinstance(role, dict):  # {"author": {"role": …}}, as ChatGPT exports it
        role = role.get("role")
    if not isinstance(role, str) or not role.strip():
        return Fault("bad_roles", "its role is not a name")
    value, thoughts = _without_thoughts(item.get(content_key))
    content = block_text(value) if isinstance(value, (list, dict)) else cell_text(value)
    if isinstance(content, Fault):
        return content
    content = content or ""
    fields = {
        key: without_nulls(value) if isinstance(value, (list, dict)) else value
        for key, value in item.items()
        if key not in (role_key, content_key) and value is not None
    }
    if thoughts:
        fields.setdefault("reasoning_content", "\n".join(thoughts))
    for calls in ("tool_calls", "function_call"):
        if fields.get(calls):
            content = "\n".join(part for part in (content, json_text(fields[calls])) if part)
    return [Turn(ROLES.get(role.strip().strip("<|>:").lower(), role), content, fields or None)]


def _without_thoughts(value: Any) -> tuple[Any, list[str]]:
    """A content without its blocks of reasoning (Anthropic's `thinking`, Gemini's `thought`), and their texts."""
    if not isinstance(value, list):
        return value, []
    thoughts, blocks = [], []
    for block in value:
        if isinstance(block, dict) and (block.get("type") in _THOUGHT_TYPES or block.get("thought") is True):
            thought = next((block[key] for key in (*_THOUGHT_TYPES, "text") if isinstance(block.get(key), str)), "")
            thoughts.append(thought)
        else:
            blocks.append(block)
    return (blocks if thoughts else value), [thought for thought in thoughts if thought]


def _turn_keys(item: Mapping[str, Any]) -> tuple[str, str] | None:
    """The keys of the role and of the content; of several, the first that is not null."""
    role = _first_key(item, ROLE_KEYS)
    if role is None:
        return None
    content = _first_key(item, CONTENT_KEYS)
    if content is None:
        return (role, "content") if item.get("tool_calls") or item.get("function_call") else None
    return role, content


def _first_key(item: Mapping[str, Any], keys: Sequence[str]) -> str | None:
    present = [key for key in keys if key in item]
    return next((key for key in present if item[key] is not None), present[0] if present else None)


def _pair_keys(item: Mapping[str, Any]) -> tuple[str, str] | None:
    return next((pair for pair in _PAIR_KEYS if pair[0] in item and pair[1] in item), None)
