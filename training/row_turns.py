"""The turns of an ARM row as training reads them: text, thought, tool calls, and whether the turn is trained.

Ingest keeps the text of each turn in `messages`, and what a message had besides its text in `meta` under `_turns`
(position in the dialogue to fields); other columns of the row, such as `tools`, are keys of `meta`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from siftune.curation.formats.cells import json_text
from siftune.curation.formats.turns import is_trained

SystemTurn = Literal["keep", "fold"]

_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
_CALLS = ("tool_calls", "function_call")
_TOOL_KEYS = ("type", "function", "name", "description", "parameters", "properties", "required")
#: Raised when the same rows get other tokens or another mask, so that adapters of before are trained again.
MASK_VERSION = 3
#: What `meta` of a row holds when it holds anything for training: a look at its text saves parsing it.
META_KEYS = ('"_turns"', '"tools"', '"functions"')


@dataclass(frozen=True)
class RowTurn:
    """One turn of a row."""

    role: str
    content: str
    #: The row does not mark the turn as left out of the loss.
    is_trained: bool = True
    #: The thought before the answer, from a field of its own.
    thought: str | None = None
    #: Tool calls as OpenAI writes them: `{"type": "function", "function": {"name", "arguments"}}`.
    calls: tuple[Mapping[str, Any], ...] = ()
    #: `content` with the calls as JSON text, for templates that take none.
    content_with_calls: str = ""
    #: `name` and `tool_call_id` of a tool's turn.
    extras: Mapping[str, str] = field(default_factory=dict)


def read_turns(messages: Sequence[Mapping[str, Any]], meta: str | None) -> tuple[list[RowTurn], list[dict[str, Any]]]:
    """The turns of a row, and the tools that its dialogue could call.

    Args:
        messages: The row's messages; fields besides `role` and `content` count like those in `meta`.
        meta: The row's `meta`, JSON text.
    """
    document: Mapping[str, Any] = {}
    if meta and any(key in meta for key in META_KEYS):
        document = json.loads(meta)
    stored = document.get("_turns")
    stored = stored if isinstance(stored, dict) else {}
    turns = []
    for position, message in enumerate(messages):
        fields = {key: value for key, value in message.items() if key not in ("role", "content") and value is not None}
        fields |= stored.get(str(position)) or {}
        turns.append(_read_turn(message["role"], message["content"] or "", fields))
    return turns, _read_tools(document.get("tools") or document.get("functions"))


def fold_system(turns: Sequence[RowTurn]) -> list[RowTurn]:
    """The dialogue with the text of each system turn at the head of the user turn that follows it."""
    folded: list[RowTurn] = []
    waiting: list[str] = []
    for turn in turns:
        if turn.role == "system":
            waiting.append(turn.content)
        elif turn.role == "user" and waiting:
            folded.append(replace(turn, content="\n\n".join([*waiting, turn.content])))
            waiting = []
        else:
            folded.append(turn)
    return folded if not waiting else list(turns)


def _read_turn(role: str, content: str, fields: Mapping[str, Any]) -> RowTurn:
    if not fields:
        return RowTurn(role, content, content_with_calls=content)
    # Ingest writes the calls behind the content as JSON text: take that off where the calls themselves are there.
    plain, calls = content, list[Mapping[str, Any]]()
    for name in reversed(_CALLS):
        if fields.get(name):
            calls = [*_read_calls(fields[name]), *calls]
            plain = plain.removesuffix(json_text(fields[name])).removesuffix("\n")
    thought = next((fields[name] for name in _THOUGHTS if isinstance(fields.get(name), str)), None)
    return RowTurn(
        role,
        plain if calls else content,
        is_trained=is_trained(fields),
        thought=thought if thought and thought.strip() else None,
        calls=tuple(calls),
        content_with_calls=content,
        extras={name: fields[name] for name in ("name", "tool_call_id") if isinstance(fields.get(name), str)},
    )


def _read_calls(value: Any) -> list[Mapping[str, Any]]:
    """Tool calls in OpenAI's form; nothing where one of them has no name, so that its text is trained as it is."""
    value = _parsed(value)
    calls: list[Mapping[str, Any]] = []
    for call in value if isinstance(value, list) else [value]:
        call = _parsed(call)
        function = _parsed(call.get("function", call)) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            return []
        rest = {key: call[key] for key in ("id",) if isinstance(call.get(key), str)}
        arguments = _parsed(function.get("arguments", function.get("parameters", {})))
        calls.append(
            {
                "type": "function",
                **rest,
                "function": {"name": function["name"], "arguments": {} if arguments is None else arguments},
            }
        )
    return calls


def _read_tools(value: Any) -> list[dict[str, Any]]:
    value = _parsed(value)
    tools = [_in_order(_without_nulls(_parsed(tool))) for tool in (value if isinstance(value, list) else [])]
    return [
        tool if "function" in tool else {"type": "function", "function": tool}
        for tool in tools
        if isinstance(tool, dict)
    ]


def _in_order(value: Any) -> Any:
    """A tool with its keys in the order in which OpenAI's documentation and JSON Schema write them, which is the order
    that models have seen; ingest sorts keys, since the formats of files do not agree on their order."""
    if isinstance(value, dict):
        known = [key for key in _TOOL_KEYS if key in value]
        return {key: _in_order(value[key]) for key in [*known, *(key for key in value if key not in known)]}
    return [_in_order(item) for item in value] if isinstance(value, list) else value


def _without_nulls(value: Any) -> Any:
    """A value without the keys that are null: Arrow fills the objects of a column up to the keys of all of them."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _parsed(value: Any) -> Any:
    """The value of JSON text; anything else as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
