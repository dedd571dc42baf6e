"""The tokens that the guard protects: numbers, operators, identifiers and negations, as polars expressions.

Two texts that differ in one of these tokens say different things, however similar they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import polars as pl

from siftune.curation.recipe.sections import GuardClass
from siftune.curation.schema import Key
from siftune.curation.text.look_alikes import compatible_letters
from siftune.curation.text.words import key_text, word_count, words

#: Answers of fewer words are labels, names, numbers, one sentence: any other word in them is another answer.
SHORT_ANSWER: Final = 12

_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_UNITS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_NUMBER_WORDS = (
    {word: str(value) for value, word in enumerate(_UNITS)}
    | {word: str(20 + 10 * tens) for tens, word in enumerate(_TENS)}
    | {"hundred": "100", "thousand": "1000", "million": "1000000", "billion": "1000000000"}
)
_NEGATIONS = ("not", "no", "never", "none", "nor", "neither", "nothing", "nobody", "nowhere", "without", "except")
_SPELLED = {
    form: plain
    for word, plain in {**_NUMBER_WORDS, **{word: word for word in _NEGATIONS}}.items()
    for form in (word, word.capitalize(), word.upper())
}

#: A line's bullet, enumerator, heading or quotation mark: layout, not an operator or a number.
_LINE_START = r"(?m)^[ \t]*(?:(?:[-*+•>]|#{1,6}|\(?\d{1,3}[.)])[ \t]+)+"
_RULER = r"(?m)^[ \t]*(?:[-=*_~]{3,}|[-|:+= \t]*\|[-|:+= \t]*)$"
_EMPHASIS = r"""(^|[\s(\["'])(\*{1,3})([^\s*](?:[^*\n]*[^\s*])?)\*{1,3}"""

_MINUS = r"\s-\s"
_PATTERNS: dict[GuardClass, str] = {
    "identifiers": "|".join(
        [
            r"`[^`\n]{1,80}`",
            r"\b[A-Za-z_]\w*(?:\.[A-Za-z_]\w+)+\(?",  # dotted names; `e.g` and `U.S` are none
            r"\b[A-Za-z_]\w*\(",
            r"\b_*[^\W_]+(?:_+[^\W_]+)+_*",
            r"\b__\w+__",
            r"\b[a-z]+[A-Z]\w*|\b[A-Z][a-z0-9]+[A-Z][a-z]\w*",
            r"\b(?:[A-Za-z]+\d\w*|\d+[A-Za-z]\w*)",
        ]
    ),
    "numbers": rf"\d+(?:,\d\d\d)*(?:\.\d+)*%?|{_MINUS}|(?i:\b(?:{'|'.join(_NUMBER_WORDS)})\b)",
    "operators": rf"{_MINUS}|[=!<>]=+|<-|->|=>|\*\*|&&|\|\||<<|>>|[+*/=<>^%]|[\p{{Sm}}--[|~]]|[←-⇿]",
    "negations": rf"(?i:\b(?:{'|'.join(_NEGATIONS)})\b)",
}
_ORDER: tuple[GuardClass, ...] = ("identifiers", "numbers", "operators", "negations")


def guard_tokens(text: pl.Expr, classes: Sequence[GuardClass]) -> pl.Expr:
    r"""The protected tokens of a text in their order, a list of strings.

    Classes: `numbers` (also decimals, percentages, number words, and the minus), `operators` (comparison, arithmetic,
    logic, arrows, mathematical symbols; a minus between spaces or beside a digit), `identifiers` (snake_case,
    camelCase, dotted names, calls, letters mixed with digits, back-ticked spans) and `negations`. Forms that mean the
    same are one token: `can't`, `cannot` and `can not`; `five` and `5`; `1,000` and `1000`. Bullets, enumerators,
    headings, rulers and emphasis are layout and do not count.
    """
    patterns = [_PATTERNS[name] for name in _ORDER if name in classes]
    if not patterns:
        return text.str.extract_all(r"\z.")
    plain = (
        compatible_letters(text)
        .str.replace_all(_RULER, "")
        .str.replace_all(_LINE_START, "")
        .str.replace_all(_EMPHASIS, "$1$3")
        .str.replace_all("−", "-", literal=True)
        .str.replace_all(r"-(\d)", " - $1")
        .str.replace_all(r"(\d)-", "$1 - ")
        .str.replace_all(r"(?i)(?:n['’]t|nnot)\b", "n not")
    )
    token = pl.element().str.strip_chars(" \t\r\n\u00a0")
    number = token.str.replace_all(r"(\d),(\d)", "$1$2")
    spelled = pl.when(token.str.contains(r"^\d")).then(number).otherwise(token.replace(_SPELLED))
    return plain.str.extract_all("|".join(patterns)).list.eval(spelled)


def guard_hash(text: pl.Expr, classes: Sequence[GuardClass]) -> pl.Expr:
    """A 64-bit hash of the ordered protected tokens: two texts are guarded if and only if theirs differ."""
    return guard_tokens(text, classes).list.join("\x1f").hash(0)


def key_guard_tokens(key: Key, classes: Sequence[GuardClass]) -> pl.Expr:
    """The protected tokens of a compared text, over the columns of TEXTS.

    In a dialogue an answer of fewer than `SHORT_ANSWER` words is protected in every word: beside a long prompt it
    hardly changes a similarity, yet "A" and "B", or "yes" and "no", are conflicting answers and no duplicates.
    """
    tokens = guard_tokens(key_text(key), classes)
    if key != "dialogue" or not classes:
        return tokens
    short = word_count(pl.col("answer")) < SHORT_ANSWER
    answer_words = words(pl.when(short).then("answer").otherwise(pl.lit("")))
    return pl.concat_list(tokens, answer_words)


def key_guard_hash(key: Key, classes: Sequence[GuardClass]) -> pl.Expr:
    """As `guard_hash`, of `key_guard_tokens`."""
    return key_guard_tokens(key, classes).list.join("\x1f").hash(0)


def guard_difference(a: Sequence[str], b: Sequence[str], *, limit: int = 4) -> str:
    """The protected tokens in which two texts differ, as text: "1.022 ≠ 1.032"; at most `limit` tokens of each."""
    only_a, only_b = Counter(a) - Counter(b), Counter(b) - Counter(a)
    left, right = list(only_a.elements()), list(only_b.elements())
    if not left and not right:  # the same tokens in another order
        first = next((index for index, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(a))
        left, right = list(a[first:]), list(b[first:])
    return f"{_shortened(left, limit)} ≠ {_shortened(right, limit)}"


def _shortened(tokens: Sequence[str], limit: int) -> str:
    if not tokens:
        return "(nothing)"
    return " ".join(tokens[:limit]) + (" …" if len(tokens) > limit else "")
