"""Multiple choice: the options of a question in one column or in several, and the option that an answer names."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, NamedTuple

from siftune.curation.formats.cells import Row, decoded, is_null, json_text

#: A column that holds one option: `A`, `option_a`, `choice1`, `opa`, `answerA`, `ending0`.
_OPTION_COLUMN = re.compile(
    r"(options?|choices?|opt|op|answers?|endings?|alternatives?|alt|)[ _-]?([a-z]|[0-9]{1,2})", re.IGNORECASE
)
_LABEL_KEYS = ("label", "key", "letter", "id")
_TEXT_KEYS = ("text", "value", "content", "option", "choice", "answer")


class Choice(NamedTuple):
    """An option: what the data calls it ("" where it has no name), and its text."""

    label: str
    text: str


class OptionColumns(NamedTuple):
    """Columns that hold one option each, in order, and the number that means the first of them in the answers."""

    names: tuple[str, ...]
    first: int

    def texts(self, row: Row) -> list[str]:
        """The options of a row, without blank ones at the end."""
        values = [row.get(name) for name in self.names]
        texts = ["" if is_null(value) else _text(value) for value in values]
        while texts and not texts[-1].strip():
            texts.pop()
        return texts

    def letter(self, answer: Any) -> Any:
        """The letter of the option that an answer names by its number or by the name of its column; else the answer."""
        if isinstance(answer, str) and answer.strip() in self.names and len(answer.strip()) > 1:
            return string.ascii_uppercase[self.names.index(answer.strip())]
        number = _whole_number(answer)
        if number is None or not 0 <= number - self.first < len(self.names):
            return answer
        return string.ascii_uppercase[number - self.first]


def option_columns(columns: Sequence[str], taken: Sequence[str], answers: Sequence[Any]) -> OptionColumns | None:
    """The columns that hold one option each; None unless at least two follow each other from A, 0 or 1.

    Args:
        columns: The columns of the rows.
        taken: Columns that have a role already.
        answers: Some answers. Numbers among them count from 0 if one of them is 0; else from 1 where the columns do, or
            where one of them is the number of options.
    """
    groups: dict[str, dict[str, str]] = {}
    for column in columns:
        match = _OPTION_COLUMN.fullmatch(column)
        if match is not None and column not in taken and (match[1] or match[2].isalpha()):
            groups.setdefault(match[1].lower(), {})[match[2].lower()] = column
    best: list[str | None] = []
    starts_at_one = False
    for group in groups.values():
        for labels in (string.ascii_lowercase, map(str, range(26)), map(str, range(1, 27))):
            run = list(map(group.get, takewhile(group.__contains__, labels)))
            if len(run) > max(1, len(best)):
                best, starts_at_one = run, "1" in group and "0" not in group
    if not best:
        return None
    numbers = [number for answer in answers if (number := _whole_number(answer)) is not None]
    first = int(0 not in numbers and (starts_at_one or len(best) in numbers))
    return OptionColumns(tuple(name for name in best if name is not None), first)


def _whole_number(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return int(value) if isinstance(value, str) and re.fullmatch(r"\s*\d{1,2}\s*", value) else None


def parse_choices(value: Any) -> list[Choice]:
    """The options in a cell; none where it holds none.

    Accepts a list of texts (MMLU), {label: text} (MedQA), {"text": […], "label": […]} (ARC), a list of {label, text}
    or {key, value}, and the JSON or Python text of these.
    """
    if isinstance(value, dict):
        texts = next((value[key] for key in _TEXT_KEYS if isinstance(value.get(key), list)), None)
        if texts is not None:
            labels = next((value[key] for key in _LABEL_KEYS if isinstance(value.get(key), list)), [""] * len(texts))
            return [Choice(str(label), _text(text)) for label, text in zip(labels, texts, strict=False)]
        return [Choice(str(label), _text(text)) for label, text in value.items() if not is_null(text)]
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        value = decoded(value)
        return parse_choices(value) if isinstance(value, (list, dict)) else []
    if not isinstance(value, (list, tuple)):
        return []
    return [_choice(item) for item in value if not is_null(item)]


def _choice(item: Any) -> Choice:
    if isinstance(item, dict):
        text = next((item[key] for key in _TEXT_KEYS if isinstance(item.get(key), str)), None)
        label = next((item[key] for key in _LABEL_KEYS if isinstance(item.get(key), (str, int))), "")
        if text is not None:
            return Choice(str(label), text)
    return Choice("", _text(item))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json_text(value)


def choice_index(answer: Any, choices: Sequence[Choice]) -> int | None:
    """The index of the choice that `answer` names: by its label, by its letter or (from 0) by number; else None."""
    if isinstance(answer, bool) or not isinstance(answer, (str, int)):
        return None
    name = str(answer).strip().strip("().").lower()
    labels = [choice.label.strip().strip("().").lower() for choice in choices]
    if name and name in labels:
        return labels.index(name)
    if isinstance(answer, int):
        index = answer
    elif len(name) == 1 and name in string.ascii_lowercase:
        index = string.ascii_lowercase.index(name)
    else:
        return None
    return index if 0 <= index < len(choices) else None


def with_choices(prompt: str, answer: Any, choices: Sequence[Choice]) -> tuple[str, Any]:
    """A prompt with its choices as lettered lines, and the answer as "B. its text" where it names one of them."""
    lines = [f"{letter}. {choice.text}" for letter, choice in zip(string.ascii_uppercase, choices, strict=False)]
    index = choice_index(answer, choices)
    return "\n".join([f"{prompt}\n", *lines]), answer if index is None else lines[index]


def first_answer(value: Any) -> Any:
    """The first of several accepted answers: of a list, of SQuAD's {text: […], answer_start: […]}, or of an object
    that holds the answer beside its other spellings (TriviaQA's {value: …, aliases: […]})."""
    if isinstance(value, dict):
        for key in ("value", "text", "answer", "content", "spans", "aliases"):
            inner = value.get(key)
            if isinstance(inner, str) or (isinstance(inner, list) and inner):
                value = inner
                break
    if isinstance(value, list):
        if not value:
            return None
        if all(isinstance(item, str) for item in value):
            return next((item for item in value if item.strip()), value[0])
        if isinstance(value[0], dict):
            first = first_answer(value[0])
            return first if isinstance(first, str) else value
    return value
