"""What a program can check in an answer: sentences, an expected word or number, a forbidden pattern."""

from __future__ import annotations

import re
from dataclasses import dataclass

from siftune.curation.errors import UserError
from siftune.curation.recipe.training_sections import Prompt

_NUMBER_WORDS = dict(
    enumerate("zero one two three four five six seven eight nine ten eleven twelve".split())  # noqa: SIM905 - reads
)
_ABBREVIATIONS = re.compile(r"\b(?:e\.g|i\.e|etc|vs|cf|Mr|Mrs|Ms|Dr|Prof|St|No|approx)\.", re.IGNORECASE)
_LIST_MARK = re.compile(r"^\s*(?:[-*•#>]+|\d+[.)]|[a-zA-Z][.)])\s+", re.MULTILINE)
_SENTENCE_END = re.compile(r"[.!?…。！？]+[\"'”’)\]*]*(?=\s|$)|\n\s*\n|\n(?=\s*$)")
_WORD = re.compile(r"\w")


@dataclass(frozen=True)
class AnswerChecks:
    """The results of the checks; None where the prompt asks for no such check."""

    sentences: int
    sentences_kept: bool | None
    expected_found: bool | None
    forbidden_found: bool | None

    def __str__(self) -> str:
        notes = []
        if self.sentences_kept is not None:
            notes.append(f"{self.sentences} sentences: limit {'met' if self.sentences_kept else 'not met'}")
        if self.expected_found is not None:
            notes.append(f"expected answer {'present' if self.expected_found else 'missing'}")
        if self.forbidden_found is not None:
            notes.append(f"forbidden text {'present' if self.forbidden_found else 'absent'}")
        return "; ".join(notes)


def check_answer(prompt: Prompt, answer: str) -> AnswerChecks:
    """Check one answer. Raises `UserError` when `forbid` is not a regular expression."""
    sentences = count_sentences(answer)
    return AnswerChecks(
        sentences=sentences,
        sentences_kept=None if prompt.max_sentences is None else 0 < sentences <= prompt.max_sentences,
        expected_found=None if prompt.expect is None else contains_word(answer, prompt.expect),
        forbidden_found=None if prompt.forbid is None else _forbidden(prompt.forbid).search(answer) is not None,
    )


def count_sentences(text: str) -> int:
    """The number of sentences of a text. List marks, decimals and common abbreviations end none; a heading is one."""
    prose = _LIST_MARK.sub("\n", _ABBREVIATIONS.sub("abbreviation", text))
    return sum(1 for part in _SENTENCE_END.split(prose) if _WORD.search(part))


def contains_word(text: str, expected: str) -> bool:
    """Whether `text` contains `expected` as a whole word, in any case. 1,081 is 1081; small numbers may be words."""
    normalised = re.sub(r"(?<=\d)[,\u00a0\u202f' ](?=\d{3}\b)", "", text).replace("−", "-")
    spellings = [expected]
    if expected.isdigit() and int(expected) in _NUMBER_WORDS:
        spellings.append(_NUMBER_WORDS[int(expected)])
    return any(re.search(rf"(?<![\w.]){re.escape(word)}(?!\w|\.\d)", normalised, re.IGNORECASE) for word in spellings)


def _forbidden(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.IGNORECASE | re.MULTILINE)
    except re.error as fault:
        raise UserError(
            f"compare.prompts: forbid {pattern!r} is not a regular expression ({fault}). Escape ( and the like."
        ) from None
