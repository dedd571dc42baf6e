"""Normal forms, words and compared texts, as polars expressions.

Everything here is a function of one text alone; nothing depends on the rest of the data.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.schema import Key
from siftune.curation.text.look_alikes import compatible_letters, plain_letters, without_ignorable

#: Scripts that are written without spaces between words: one character is one word there.
#: ー is Common, not Katakana, in Unicode's script property, but is only ever a part of Japanese words.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー"
_WORD = rf"[\w&&[{_UNSPACED}]]|[\w--[{_UNSPACED}]]+"

#: What a code point is to a tokeniser: between words, part of a word, a word by itself, or only to be judged together
#: with its neighbours.
SEPARATOR: Final = 0
LETTER: Final = 1
WORD: Final = 2
HARD: Final = 3


def normalise(text: pl.Expr) -> pl.Expr:
    """The exact key: `plain_letters` (NFC), every run of white space one space, none at the ends; case is kept.

    Two texts that differ only in indentation, line breaks, characters that are not shown or look-alike letters
    therefore have the same key.
    """
    return plain_letters(text).str.replace_all(r"\s+", " ").str.strip_chars(" ")


def words(text: pl.Expr) -> pl.Expr:
    r"""The words of a text, a list of strings: `plain_letters`, NFKC, lower case, runs of `\w`.

    In scripts without spaces between words (Han, kana, Thai, Lao, Khmer, Myanmar) every character is a word. A text
    that has no word at all (punctuation, emoji) has one: its normal form. An empty text has none.
    """
    plain = compatible_letters(text).str.to_lowercase()
    matches = plain.str.extract_all(_WORD)
    normal_form = normalise(pl.when(matches.list.len() == 0).then(plain))
    return (
        pl.when(matches.list.len() > 0)
        .then(matches)
        .when(normal_form != "")
        .then(pl.concat_list(normal_form))
        .otherwise(pl.lit([], dtype=pl.List(pl.String)))
    )


@cache
def characters() -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
    """How `words` reads each code point below 0x20000 by itself: uint8[0x20000], its kind, and uint32[0x20000], its
    lower case.

    A code point is HARD where its part in a word depends on its neighbours: combining marks and everything else that
    a normal form may join or reorder, final sigma, and what becomes several characters.
    """
    codes = np.array([code for code in range(0x80, 0x20000) if not 0xD800 <= code < 0xE000], np.uint32)
    characters = pl.DataFrame({"character": [chr(code) for code in codes]})
    plain = pl.col("character").str.normalize("NFKC").str.to_lowercase()
    read = characters.select(
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
    return without_ignorable(text).str.count_matches(_WORD)


def key_text(key: Key) -> pl.Expr:
    """The compared text over the columns of TEXTS: the prompt's core, the core and the answer, or the answer."""
    if key == "prompt":
        return pl.col("core")
    if key == "answer":
        return pl.col("answer")
    return pl.concat_str([pl.col("core"), pl.col("answer")], separator="\n")
