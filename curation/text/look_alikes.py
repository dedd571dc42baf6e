"""Characters that make no difference to a reader: those that are not shown, and letters that look like others.

For comparing only; no text that is kept is changed.

Not shown are the code points with Unicode's property Default_Ignorable_Code_Point (UAX #44): soft hyphens, zero-width
spaces and joiners, directional marks, variation selectors, fillers. Between the letters of Persian or Indic words, and
inside emoji, joiners choose a shape, not a word.

Look-alikes are pairs of UTS #39 (confusables.txt) of single letters that common fonts draw the same way. They are read
as the script of the rest of their word, and only in words that mix scripts: a Cyrillic "а" inside "bаnk" is an "a",
Russian and Greek words stay as they are, and so do words that need both scripts ("μm").
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Final, Literal

import polars as pl

IGNORABLE: Final = r"\p{Default_Ignorable_Code_Point}"
_OTHERS: Final = r"\p{Cyrillic}\p{Greek}"
#: Letters of two scripts side by side.
_MIXED: Final = rf"\p{{Latin}}[{_OTHERS}]|[{_OTHERS}]\p{{Latin}}"
_CYRILLIC: Final = dict(zip("АВЕЅІЈКМНОРСТУХаеорсухѕіјһԛԝ", "ABESIJKMHOPCTYXaeopcyxsijhqw", strict=True))
_GREEK: Final = dict(zip("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧο", "ABEZHIKMNOPTYXo", strict=True))
_TO_LATIN: Final = str.maketrans(_CYRILLIC | _GREEK)
_FROM_LATIN: Final = tuple({latin: letter for letter, latin in table.items()} for table in (_CYRILLIC, _GREEK))
_LETTERS = re.compile(r"[^\W\d_]+")


def without_ignorable(text: pl.Expr) -> pl.Expr:
    """The text without characters that are not shown."""
    return _beyond_ascii(text, lambda texts: texts.str.replace_all(IGNORABLE, ""))


def plain_letters(text: pl.Expr) -> pl.Expr:
    """The text in NFC without characters that are not shown, and with look-alikes in the script of their word."""
    return _beyond_ascii(text, _plain)


def plain_texts(texts: pl.Series) -> pl.Series:
    """As `plain_letters`, of a series."""
    return _changed_beyond_ascii(texts, _plain)


def compatible_letters(text: pl.Expr) -> pl.Expr:
    """As `plain_letters`, in NFKC."""
    return _beyond_ascii(text, lambda texts: _unicode_form(_plain(texts), "NFKC"))


def _beyond_ascii(text: pl.Expr, change: Callable[[pl.Series], pl.Series]) -> pl.Expr:
    return text.map_batches(
        lambda texts: _changed_beyond_ascii(texts, change), return_dtype=pl.String, is_elementwise=True
    )


def _changed_beyond_ascii(texts: pl.Series, change: Callable[[pl.Series], pl.Series]) -> pl.Series:
    """`texts`, with those changed that are not all ASCII: none of these changes does anything to ASCII."""
    others = (texts.str.len_bytes() != texts.str.len_chars()).fill_null(value=False)
    if not others.any():
        return texts
    return texts.clone().scatter(others.arg_true(), change(texts.filter(others)))


def _plain(texts: pl.Series) -> pl.Series:
    return _with_one_script_in_a_word(_unicode_form(texts.str.replace_all(IGNORABLE, ""), "NFC"))


def _unicode_form(texts: pl.Series, form: Literal["NFC", "NFKC"]) -> pl.Series:
    return texts.to_frame("text").select(pl.col("text").str.normalize(form))["text"]


def _with_one_script_in_a_word(texts: pl.Series) -> pl.Series:
    rows = texts.str.contains(_MIXED).fill_null(value=False).arg_true()
    if not len(rows):
        return texts
    read = [unicodedata.normalize("NFC", _LETTERS.sub(_read, text)) for text in texts.gather(rows)]
    return texts.scatter(rows, pl.Series(read, dtype=pl.String))


def _read(match: re.Match[str]) -> str:
    """A word in the script that its letters without a look-alike are of: in Latin where there are none of these."""
    word = match.group()
    latin = word.translate(_TO_LATIN)
    if latin == word:
        return word
    if all(_is_latin(letter) for letter in latin):
        # Where every letter has a look-alike, a word without any Latin one stays.
        return latin if any(_is_latin(letter) for letter in word) else word
    for table in _FROM_LATIN:
        other = "".join(table.get(letter, letter) for letter in word)
        if not any(_is_latin(letter) for letter in other):
            return other
    return word


def _is_latin(letter: str) -> bool:
    return letter < "\u0250" or "\u1e00" <= letter < "\u1f00" or unicodedata.category(letter)[0] == "M"
