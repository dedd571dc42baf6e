"""What a machine can check in an answer: sentences, an expected word or number, a forbidden pattern."""

from __future__ import annotations

import re
from dataclasses import dataclass

from siftune.curation.errors import UserError
from siftune.curation.recipe.sections import Prompt

_NUMBER_WORDS = dict(
    enumerate("zero one two three four five six seven eight nine ten eleven twelve".split())  # noqa: SIM905 - reads
)
_ABBREVIATIONS = re.compile(r"\b(?:e\.g|i\.e|etc|vs|cf|Mr|Mrs|Ms|Dr|Prof|St|No|approx)\.", re.IGNORECASE)
_LIST_MARK = re.compile(r"^\s*(?:[-*•#>]+|\d+[.)]|[a-zA-Z][.)])\s+", re.MULTILINE)
_SENTENCE_END = re.compile(r"[.!?…。！？]+[\"'”’)\]*]*(?=\s|$)|\n\s*\n|\n(?=\s*$)")
_WORD = re.compile(r"\w")


@dataclass(frozen=True)
class Notes:
    """What was checked; None where the prompt asks for no such check."""

    sentences: int
    sentences_kept: bool | None
    expected_found: bool | None
    forbidden_found: bool | None

    def __str__(self) -> str:
        parts = []
        if self.sentences_kept is not None:
            parts.append(f"{self.sentences} sentences: limit {'kept' if self.sentences_kept else 'broken'}")
        if self.expected_found is not None:
            parts.append(f"expected answer {'present' if self.expected_found else 'missing'}")
        if self.forbidden_found is not None:
            parts.append(f"forbidden text {'present' if self.forbidden_found else 'absent'}")
        return "; ".join(parts)


def check(prompt: Prompt, answer: str) -> Notes:
    """Check one answer. Raises `UserError` when `forbid` is not a regular expression."""
    sentences = count_sentences(answer)
    return Notes(
        sentences=sentences,
        sentences_kept=None if prompt.max_sentences is None else 0 < sentences <= prompt.max_sentences,
        expected_found=None if prompt.expect is None else holds(answer, prompt.expect),
        forbidden_found=None if prompt.forbid is None else _forbidden(prompt.forbid).search(answer) is not None,
    )


def count_sentences(text: str) -> int:
    """How many sentences a text has. List marks, decimals and common abbreviations end none; a line apart is one."""
    plain = _LIST_MARK.sub("\n", _ABBREVIATIONS.sub("abbreviation", text))
    return sum(1 for part in _SENTENCE_END.split(plain) if _WORD.search(part))


def holds(text: str, expected: str) -> bool:
    """Whether `text` holds `expected` as a whole word, case aside. 1,081 is 1081; small numbers may be words."""
    found = re.sub(r"(?<=\d)[,\u00a0\u202f' ](?=\d{3}\b)", "", text).replace("−", "-")
    wanted = [expected]
    if expected.isdigit() and int(expected) in _NUMBER_WORDS:
        wanted.append(_NUMBER_WORDS[int(expected)])
    return any(re.search(rf"(?<![\w.]){re.escape(word)}(?!\w|\.\d)", found, re.IGNORECASE) for word in wanted)


def _forbidden(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.IGNORECASE | re.MULTILINE)
    except re.error as fault:
        raise UserError(
            f"compare.prompts: forbid {pattern!r} is not a regular expression ({fault}). Escape ( and the like."
        ) from None
