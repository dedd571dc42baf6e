"""Answers that are not a text of their own: a letter among choices, one of several accepted answers."""

from __future__ import annotations

import string
from typing import Any


def choice_index(answer: Any, choices: list[Any]) -> int | None:
    """The index of the choice that `answer` names by letter or (from 0) by number; None where it names none."""
    if isinstance(answer, str) and len(answer.strip()) == 1 and answer.strip().upper() in string.ascii_uppercase:
        index = string.ascii_uppercase.index(answer.strip().upper())
    elif isinstance(answer, int) and not isinstance(answer, bool):
        index = answer
    else:
        return None
    return index if 0 <= index < len(choices) else None


def first_answer(value: Any) -> Any:
    """The first of several accepted answers: of a list, or of SQuAD's {text: […], answer_start: […]}."""
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        value = value["text"]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value[0] if value else None
    return value
