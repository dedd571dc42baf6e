"""Multiple choice: the options of a question in one column or in several, and the option that an answer names."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, Literal, NamedTuple

from siftune.curation.formats.cells import Row, decoded, is_null, json_text

#: A column that holds one option: `A`, `option_a`, `choice1`, `opa`, `answerA`, `ending0`, `sol1`.
_OPTION_COLUMN = re.compile(
    r"(options?|choices?|opt|op|answers?|endings?|alternatives?|alt|sol|)[ _-]?([a-z]|[0-9]{1,2})", re.IGNORECASE
)
_LABELS: dict[Literal["0", "1", ""], Sequence[str]] = {
    "": string.ascii_lowercase,
    "0": [str(number) for number in range(26)],
    "1": [str(number) for number in range(1, 27)],
}
_LABEL_KEYS = ("label", "key", "letter", "id")
_TEXT_KEYS = ("text", "value", "content", "option", "choice", "answer")


class Choice(NamedTuple):
    """An option: what the data calls it ("" where it has no name), and its text."""

    label: str
    text: str


#: What a number means that stands where the answer should: it counts options from 0, or from 1; it is the text of an
#: option; or the rows do not say which of these.
Counting = Literal["from 0", "from 1", "text", "unclear"]


class OptionColumns(NamedTuple):
    """Columns that hold one option each, in order, and where their own names begin to count ("" for letters)."""

    names: tuple[str, ...]
    begins: Literal["0", "1", ""]

    def texts(self, row: Row) -> list[str]:
        """The options of a row, without blank ones at the end."""
        values = [row.get(name) for name in self.names]
        texts = ["" if is_null(value) else _text(value) for value in values]
        while texts and not texts[-1].strip():
            texts.pop()
        return texts

    def letter(self, answer: Any) -> Any:
        """The letter of the option whose column an answer names; any other answer as it is."""
        name = answer.strip() if isinstance(answer, str) else ""
        return string.ascii_uppercase[self.names.index(name)] if name in self.names and len(name) > 1 else answer


def counting(items: Sequence[tuple[Any, Sequence[str]]], *, usual: Counting) -> Counting:
    """What numbers mean that stand where the answers should.

    Args:
        items: Some rows: the answer and the texts of the options.
        usual: What they mean where the rows do not show it. They show it with a 0, with the number of the options, or
            when every number is the text of an option.
    """
    numbered = [
        (number, str(answer).strip(), texts)
        for answer, texts in items
        if texts and (number := whole_number(answer)) is not None
    ]
    if not numbered:
        return usual
    # A number that is both an index and the text of an option shows nothing by itself.
    if all(text in map(str.strip, texts) for _, text, texts in numbered):
        return "text" if any(number > len(texts) for number, _, texts in numbered) or len(numbered) > 2 else "unclear"
    if any(number == 0 for number, _, _ in numbered):
        return "from 0"
    return "from 1" if any(number == len(texts) for number, _, texts in numbered) else usual


def letter_of_number(answer: Any, options: int, means: Counting) -> Any:
    """The letter of the option that a number names; any other answer as it is, None where it is not clear."""
    number = whole_number(answer)
    if number is None or number > options:
        return answer
    if means == "text":
        return str(answer)
    if means == "unclear":
        return None
    index = number - (means == "from 1")
    return string.ascii_uppercase[index] if 0 <= index < min(options, 26) else answer


def option_columns(columns: Sequence[str], taken: Sequence[str]) -> OptionColumns | None:
    """The columns that hold one option each; None unless at least two follow each other from A, 0 or 1.

    Args:
        columns: The columns of the rows.
        taken: Columns that have a role already.
    """
    groups: dict[str, dict[str, str]] = {}
    for column in columns:
        match = _OPTION_COLUMN.fullmatch(column)
        if match is not None and column not in taken and (match[1] or match[2].isalpha()):
            groups.setdefault(match[1].lower(), {})[match[2].lower()] = column
    best: list[str | None] = []
    begins: Literal["0", "1", ""] = ""
    for group in groups.values():
        for beginning, labels in _LABELS.items():
            run = list(map(group.get, takewhile(group.__contains__, labels)))
            if len(run) > max(1, len(best)):
                best, begins = run, beginning
    return OptionColumns(tuple(name for name in best if name is not None), begins) if best else None


def whole_number(value: Any) -> int | None:
    """The whole number of up to two digits that a cell is or writes; None for other cells."""
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
