"""Dialogues as data sets write them: lists of turns, of pairs or of texts, JSON text of these, and marked text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from siftune.curation.formats.conversation import ROLES, Columns, Fault, Row, Turn, Turns, cell, json_text, system_turn

_ROLE_KEYS = ("role", "from", "speaker")
_CONTENT_KEYS = ("content", "value", "text")
#: Two turns in one object, as Capybara ({input, output}) and MOSS ({human, assistant}) have them.
_PAIRS = (("input", "output"), ("human", "assistant"), ("user", "assistant"), ("question", "answer"))
_MARK = re.compile(r"(?:\A|\n\n)\s*(Human|Assistant): ?")


def is_dialogue(value: Any) -> bool:
    """Whether `value` looks like a dialogue that `turns_of` can read."""
    items = _items(value)
    if not items:
        return False
    if all(isinstance(item, str) for item in items):
        return len(items) > 1 and not isinstance(value, str)
    return all(isinstance(item, dict) and (_keys(item) is not None or _pair(item) is not None) for item in items)


def turns_of(value: Any) -> Turns | Fault:
    """The turns of a dialogue, in the standard roles where they have one.

    Accepts a list of {role, content} or {from, value}, of {input, output} pairs, of texts (user first), the JSON
    text of such a list, and a struct of lists (how `datasets` stored sequences of objects).
    """
    items = _items(value)
    if items is None:
        return Fault("wrong_type", "a dialogue is a list of turns")
    turns: Turns = []
    for position, item in enumerate(items):
        found = _turns_of_item(item, position)
        if isinstance(found, Fault):
            return Fault(found.reason, f"turn {position}: {found.detail}")
        turns.extend(found)
    return turns


def converted(row: Row, columns: Columns, role: str) -> Turns | Fault:
    """The dialogue in the cell of `role`; a `system` cell comes first, unless the dialogue opens with the same text."""
    value = row.get(columns[role])
    if not value:
        return Fault("missing_prompt", "no turns")
    turns = turns_of(value)
    system = system_turn(row, columns)
    if isinstance(turns, Fault):
        return turns
    if isinstance(system, Fault):
        return system
    return turns if system and turns[:1] == system else [*system, *turns]


def said(value: Any, role: str) -> Turns | Fault:
    """A cell that is a dialogue, or a text that `role` says; null is no turn."""
    if isinstance(value, list):
        return turns_of(value)
    text = cell(value)
    if isinstance(text, Fault):
        return text
    return [] if text is None else [Turn(role, text)]


def marked_turns(text: str) -> Turns | None:
    r"""The turns of "\n\nHuman: …\n\nAssistant: …" (the Anthropic HH form), or None when `text` is not of it."""
    parts = _MARK.split(text)
    if len(parts) < 3 or parts[0].strip() or parts[1] != "Human":
        return None
    return [Turn(ROLES[mark.lower()], said.strip()) for mark, said in zip(parts[1::2], parts[2::2], strict=True)]


def _items(value: Any) -> Sequence[Any] | None:
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return None
    if isinstance(value, dict) and value and all(isinstance(part, list) for part in value.values()):
        lengths = {len(part) for part in value.values()}
        if len(lengths) != 1:
            return None
        return [dict(zip(value, parts, strict=True)) for parts in zip(*value.values(), strict=True)]
    return value if isinstance(value, (list, tuple)) else None


def _turns_of_item(item: Any, position: int) -> Turns | Fault:
    if isinstance(item, str):
        return [Turn("assistant" if position % 2 else "user", item)]
    if not isinstance(item, dict):
        return Fault("wrong_type", "not an object")
    keys = _keys(item)
    if keys is not None:
        return _one_turn(item, *keys)
    pair = _pair(item)
    if pair is None:
        return Fault("bad_roles", f"no role; keys: {', '.join(map(str, item))}")
    texts = [cell(item[key]) for key in pair]
    fault = next((text for text in texts if isinstance(text, Fault)), None)
    if fault is not None:
        return fault
    rest = {key: value for key, value in item.items() if key not in pair and value is not None}
    return [Turn("user", str(texts[0] or ""), rest or None), Turn("assistant", str(texts[1] or ""))]


def _one_turn(item: Mapping[str, Any], role_key: str, content_key: str) -> Turns | Fault:
    role = item[role_key]
    if not isinstance(role, str) or not role.strip():
        return Fault("bad_roles", "its role is not a name")
    content = _content(item.get(content_key))
    if isinstance(content, Fault):
        return content
    rest = {key: value for key, value in item.items() if key not in (role_key, content_key) and value is not None}
    for calls in ("tool_calls", "function_call"):
        if rest.get(calls):
            content = "\n".join(part for part in (content, json_text(rest[calls])) if part)
    return [Turn(ROLES.get(role.strip().lower(), role), content, rest or None)]


def _content(value: Any) -> str | Fault:
    """The text of a message: a cell, or a list of parts ({"type": "text", "text": …}) that are all text."""
    if not isinstance(value, list):
        text = cell(value)
        return "" if text is None else text
    texts = []
    for part in value:
        said = part.get("text") if isinstance(part, dict) else part
        if not isinstance(said, str):
            kind = part.get("type", "object") if isinstance(part, dict) else type(part).__name__
            return Fault("wrong_type", f"a content part that is not text ({kind})")
        texts.append(said)
    return "\n".join(texts)


def _keys(item: Mapping[str, Any]) -> tuple[str, str] | None:
    role = next((key for key in _ROLE_KEYS if key in item), None)
    content = next((key for key in _CONTENT_KEYS if key in item), None)
    if role is None:
        return None
    if content is None:
        return (role, "content") if item.get("tool_calls") or item.get("function_call") else None
    return role, content


def _pair(item: Mapping[str, Any]) -> tuple[str, str] | None:
    return next((pair for pair in _PAIRS if pair[0] in item and pair[1] in item), None)
