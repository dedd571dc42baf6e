"""Whether a generated answer is the expected one: the same text, a text that matches, or the same number."""

from __future__ import annotations

import math
import re
from typing import Literal

AnswerKind = Literal["exact", "regex", "number"]

#: A number, perhaps with thousands separators, a fraction or an exponent; no digit of a name such as `x2`.
_NUMBER = re.compile(r"(?<![\w.])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?")
#: GSM8K writes its final number behind this mark (Cobbe et al., arXiv 2110.14168).
_FINAL_MARK = "####"
_QUOTES = "\"'`*_“”‘’"


def is_right(kind: AnswerKind, answer: str, expected: str) -> bool:
    """Whether `answer` is what the task expects; the whole answer counts, and nothing is given for a part.

    exact: the two are equal but for white space, quotes and emphasis around them and a final full stop. Case counts.
    regex: the regular expression `expected` occurs in the answer.
    number: the last number of the answer equals the last number of `expected`, the convention of GSM8K.
    """
    if kind == "exact":
        return _bare(answer) == _bare(expected)
    if kind == "regex":
        return re.search(expected, answer) is not None
    given, wanted = last_number(answer), last_number(expected)
    return given is not None and wanted is not None and math.isclose(given, wanted, rel_tol=1e-9)


def last_number(text: str) -> float | None:
    """The last number of a text, or of what stands behind its last ####; None where there is none.

    >>> last_number("She pays 1,200.50 dollars"), last_number("3 + 4 = 7 #### 7"), last_number("x2")
    (1200.5, 7.0, None)
    """
    final = text.rpartition(_FINAL_MARK)[2]
    numbers = _NUMBER.findall(final) or _NUMBER.findall(text)
    return float(numbers[-1].replace(",", "")) if numbers else None


def _bare(text: str) -> str:
    """The text on one line without what may stand around it; a final full stop may be inside or outside of quotes."""
    text = " ".join(text.split())
    return text.strip(_QUOTES).removesuffix(".").strip(_QUOTES).strip()
