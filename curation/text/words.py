"""What measures compare: normal forms, words, and the tokens that the guard protects, as polars expressions.

Everything here is a function of one text alone; nothing depends on the rest of the data.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.recipe.sections import GuardClass
from siftune.curation.schema import Key

#: Scripts that are written without spaces between words: one character is one word there.
#: ー is Common, not Katakana, in Unicode's script property, but is only ever a part of Japanese words.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー"
_WORD = rf"[\w&&[{_UNSPACED}]]|[\w--[{_UNSPACED}]]+"

#: Answers of fewer words are labels, names, numbers, one sentence: any other word in them is another answer.
SHORT_ANSWER: Final = 12

#: What a code point is to a tokeniser: between words, part of a word, a word by itself, or only to be judged together
#: with its neighbours.
SEPARATOR: Final = 0
LETTER: Final = 1
WORD: Final = 2
HARD: Final = 3

_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_UNITS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_NUMBER_WORDS = (
    {word: str(value) for value, word in enumerate(_UNITS)}
    | {word: str(20 + 10 * place) for place, word in enumerate(_TENS)}
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


def normalise(text: pl.Expr) -> pl.Expr:
    """The exact key: Unicode NFC, every run of white space one space, none at the ends; case is kept.

    Two texts that differ only in indentation or line breaks therefore have the same key.
    """
    return text.str.normalize("NFC").str.replace_all(r"\s+", " ").str.strip_chars(" ")


def words(text: pl.Expr) -> pl.Expr:
    r"""The words of a text, a list of strings: NFKC, lower case, runs of `\w`.

    In scripts without spaces between words (Han, kana, Thai, Lao, Khmer, Myanmar) every character is a word. A text
    that has no word at all (punctuation, emoji) has one: its normal form. An empty text has none.
    """
    plain = text.str.normalize("NFKC").str.to_lowercase()
    found = plain.str.extract_all(_WORD)
    whole = normalise(plain)
    return (
        pl.when(found.list.len() > 0)
        .then(found)
        .when(whole != "")
        .then(pl.concat_list(whole))
        .otherwise(pl.lit([], dtype=pl.List(pl.String)))
    )


@cache
def characters() -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
    """How `words` reads each code point below 0x20000 by itself: its kind (uint8) and its lower case (uint32).

    A code point is HARD where its part in a word depends on its neighbours: combining marks and everything else that
    a normal form may join or reorder, final sigma, and what becomes several characters.
    """
    codes = np.array([code for code in range(0x80, 0x20000) if not 0xD800 <= code < 0xE000], np.uint32)
    one = pl.DataFrame({"one": [chr(code) for code in codes]})
    plain = pl.col("one").str.normalize("NFKC").str.to_lowercase()
    read = one.select(
        plain=plain,
        letters=plain.str.count_matches(r"\w"),
        unspaced=plain.str.contains(f"[{_UNSPACED}]"),
        single=plain.str.len_chars() == 1,
    )
    kind = read.select(
        pl.when(pl.col("letters") == 0)
        .then(SEPARATOR)
        .when(~pl.col("single"))
        .then(HARD)
        .when("unspaced")
        .then(WORD)
        .otherwise(LETTER)
    ).to_series()
    kinds = np.full(0x20000, HARD, np.uint8)
    kinds[codes] = kind.to_numpy()
    kinds[_joining()] = HARD
    lowers = np.zeros(0x20000, np.uint32)
    lowers[codes] = [ord(text) if len(text) == 1 else 0 for text in read["plain"]]
    return kinds, lowers


def _joining() -> list[int]:
    """Code points that normal forms may join to what precedes them, or reorder; and those not assigned yet."""
    joining = {ord("Σ"), *range(0x1160, 0x1200)}  # Hangul vowels and finals compose by rule, not by table
    for character in map(chr, range(0x80, 0x20000)):
        parts = unicodedata.decomposition(character).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            joining.add(int(parts[1], 16))
        if unicodedata.combining(character) or unicodedata.category(character) == "Cn":
            joining.add(ord(character))
    # Also what stands for one of these: the half-width voicing mark becomes a combining one.
    first = {code: ord(unicodedata.normalize("NFKC", chr(code))[0]) for code in range(0x80, 0x20000)}
    return [code for code, plain in first.items() if code in joining or plain in joining]


def word_count(text: pl.Expr) -> pl.Expr:
    """How many words a text has, as in `words`; 0 where there is none, however much punctuation there is."""
    return text.str.count_matches(_WORD)


def key_text(key: Key) -> pl.Expr:
    """The compared text over the columns of TEXTS: the prompt's core, the core and the answer, or the answer."""
    if key == "prompt":
        return pl.col("core")
    if key == "answer":
        return pl.col("answer")
    return pl.concat_str([pl.col("core"), pl.col("answer")], separator="\n")


def guard_tokens(text: pl.Expr, classes: Sequence[GuardClass]) -> pl.Expr:
    r"""The protected tokens of a text in their order, a list of strings.

    Classes: `numbers` (also decimals, percentages, number words, and the minus), `operators` (comparison, arithmetic,
    logic, arrows, mathematical symbols; a minus between spaces or beside a digit), `identifiers` (snake_case,
    camelCase, dotted names, calls, letters mixed with digits, back-ticked spans) and `negations`. Forms that mean the
    same are one token: `can't`, `cannot` and `can not`; `five` and `5`; `1,000` and `1000`. Bullets, enumerators,
    headings, rulers and emphasis are layout and do not count.
    """
    chosen = [_PATTERNS[kind] for kind in _ORDER if kind in classes]
    if not chosen:
        return text.str.extract_all(r"\z.")
    plain = (
        text.str.normalize("NFKC")
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
    return plain.str.extract_all("|".join(chosen)).list.eval(spelled)


def guard_hash(text: pl.Expr, classes: Sequence[GuardClass]) -> pl.Expr:
    """A 64-bit hash of the ordered protected tokens: two texts are guarded if and only if theirs differ."""
    return guard_tokens(text, classes).list.join("\x1f").hash(0)


def key_guard_tokens(key: Key, classes: Sequence[GuardClass]) -> pl.Expr:
    """The protected tokens of a compared text, over the columns of TEXTS.

    In a dialogue an answer of fewer than `SHORT_ANSWER` words is protected in every word: beside a long prompt it
    weighs nothing in a similarity, yet "A" and "B", or "yes" and "no", are conflicting answers and no duplicates.
    """
    tokens = guard_tokens(key_text(key), classes)
    if key != "dialogue" or not classes:
        return tokens
    short = word_count(pl.col("answer")) < SHORT_ANSWER
    whole = pl.when(short).then(words(pl.col("answer"))).otherwise(pl.lit([], dtype=pl.List(pl.String)))
    return pl.concat_list(tokens, whole)


def key_guard_hash(key: Key, classes: Sequence[GuardClass]) -> pl.Expr:
    """As `guard_hash`, of `key_guard_tokens`."""
    return key_guard_tokens(key, classes).list.join("\x1f").hash(0)


def guard_difference(a: Sequence[str], b: Sequence[str], *, most: int = 4) -> str:
    """What protects two texts from one another, for a reader: "1.022 ≠ 1.032"; at most `most` tokens a side."""
    only_a, only_b = Counter(a) - Counter(b), Counter(b) - Counter(a)
    left, right = list(only_a.elements()), list(only_b.elements())
    if not left and not right:  # the same tokens in another order
        at = next((place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(a))
        left, right = list(a[at:]), list(b[at:])
    return f"{_few(left, most)} ≠ {_few(right, most)}"


def _few(tokens: Sequence[str], most: int) -> str:
    if not tokens:
        return "∅"
    return " ".join(tokens[:most]) + (" …" if len(tokens) > most else "")
