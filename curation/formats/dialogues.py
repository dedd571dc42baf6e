"""Dialogues as data sets write them: lists of turns, of pairs or of texts, JSON text of these, and marked text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from siftune.curation.formats.cells import Columns, Row, cell_text, json_text
from siftune.curation.formats.faults import Fault
from siftune.curation.formats.turns import ROLES, Turn, Turns, system_turn

_ROLE_KEYS = ("role", "from", "speaker")
_CONTENT_KEYS = ("content", "value", "text")
#: Two turns in one object, as Capybara ({input, output}) and MOSS ({human, assistant}) have them.
_PAIR_KEYS = (("input", "output"), ("human", "assistant"), ("user", "assistant"), ("question", "answer"))
_SPEAKER_MARK = re.compile(r"(?:\A|\n\n)\s*(Human|Assistant): ?")


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
    turns = parse_dialogue(value)
    system = system_turn(row, columns)
    if isinstance(turns, Fault):
        return turns
    if isinstance(system, Fault):
        return system
    return turns if system and turns[:1] == system else [*system, *turns]


def parse_text_or_dialogue(value: Any, role: str) -> Turns | Fault:
    """The turns of a cell that holds a dialogue, or one turn of `role` for a cell of text; null is no turn."""
    if isinstance(value, list):
        return parse_dialogue(value)
    text = cell_text(value)
    if isinstance(text, Fault):
        return text
    return [] if text is None else [Turn(role, text)]


def parse_marked_text(text: str) -> Turns | None:
    r"""The turns of "\n\nHuman: …\n\nAssistant: …", as Anthropic's HH data set writes them; None for any other text."""
    parts = _SPEAKER_MARK.split(text)
    if len(parts) < 3 or parts[0].strip() or parts[1] != "Human":
        return None
    speakers, contents = parts[1::2], parts[2::2]
    return [Turn(ROLES[speaker.lower()], content.strip()) for speaker, content in zip(speakers, contents, strict=True)]


def _items(value: Any) -> Sequence[Any] | None:
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return None
    if isinstance(value, dict) and value and all(isinstance(column, list) for column in value.values()):
        lengths = {len(column) for column in value.values()}
        if len(lengths) != 1:
            return None
        return [dict(zip(value, cells, strict=True)) for cells in zip(*value.values(), strict=True)]
    return value if isinstance(value, (list, tuple)) else None


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
    return [Turn("user", str(texts[0] or ""), fields or None), Turn("assistant", str(texts[1] or ""))]


def _parse_turn(item: Mapping[str, Any], role_key: str, content_key: str) -> Turns | Fault:
    role = item[role_key]
    if not isinstance(role, str) or not role.strip():
        return Fault("bad_roles", "its role is not a name")
    content = _content_text(item.get(content_key))
    if isinstance(content, Fault):
        return content
    fields = {key: value for key, value in item.items() if key not in (role_key, content_key) and value is not None}
    for calls in ("tool_calls", "function_call"):
        if fields.get(calls):
            content = "\n".join(part for part in (content, json_text(fields[calls])) if part)
    return [Turn(ROLES.get(role.strip().lower(), role), content, fields or None)]


def _content_text(value: Any) -> str | Fault:
    """The text of a message: a cell, or a list of parts ({"type": "text", "text": …}) that are all text."""
    if not isinstance(value, list):
        text = cell_text(value)
        return "" if text is None else text
    texts = []
    for part in value:
        text = part.get("text") if isinstance(part, dict) else part
        if not isinstance(text, str):
            part_type = part.get("type", "object") if isinstance(part, dict) else type(part).__name__
            return Fault("wrong_type", f"a content part that is not text ({part_type})")
        texts.append(text)
    return "\n".join(texts)


def _turn_keys(item: Mapping[str, Any]) -> tuple[str, str] | None:
    """The keys of the role and of the content."""
    role = next((key for key in _ROLE_KEYS if key in item), None)
    content = next((key for key in _CONTENT_KEYS if key in item), None)
    if role is None:
        return None
    if content is None:
        return (role, "content") if item.get("tool_calls") or item.get("function_call") else None
    return role, content


def _pair_keys(item: Mapping[str, Any]) -> tuple[str, str] | None:
    return next((pair for pair in _PAIR_KEYS if pair[0] in item and pair[1] in item), None)
