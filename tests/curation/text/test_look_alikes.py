"""Characters that no reader sees, and letters that look like others."""

from __future__ import annotations

import unicodedata

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation.dedup.exact import first_equal_row
from siftune.curation.text.look_alikes import plain_texts
from siftune.curation.text.shingle_sets import shingle_sets
from siftune.curation.text.words import normalise, word_count


def plain(text: str) -> str:
    return plain_texts(pl.Series([text]))[0]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("exam\u00adple", "example"),
        ("a\u200bb \ufeffc\u2060", "ab c"),
        ("❤\ufe0f 👩\u200d🚀", "❤ 👩🚀"),
        ("می\u200cخواهم", "میخواهم"),
        ("b\u0430nk", "bank"),
        ("\u0410thens", "Athens"),
        ("\u0391thens", "Athens"),
        ("c\u043ep", "cop"),
        ("c\u0442\u043e\u043b", "\u0441\u0442\u043e\u043b"),
        # Whole words of another script, words that need both, and what only has a look-alike in some fonts.
        ("\u0441\u043e\u0440", "\u0441\u043e\u0440"),
        ("банк ΟΔΟΣ", "банк ΟΔΟΣ"),
        ("μm Δx αx", "μm Δx αx"),
    ],
)
def test_a_text_is_read_as_it_looks(text: str, read: str) -> None:
    assert plain(text) == read


@given(st.text(st.sampled_from("aоeе\u0301\u00ad\u200dxхйPРжΔΟ 1_\n") | st.characters(exclude_categories=["Cs"])))
def test_reading_twice_changes_nothing_and_gives_nfc(text: str) -> None:
    once = plain(text)
    assert plain(once) == once == unicodedata.normalize("NFC", once)


@given(st.text("abc dé\n"), st.integers(0, 20), st.sampled_from("\u00ad\u200b\u200d\ufeff\u2060\ufe0f\U000e0020"))
def test_what_is_not_shown_is_no_difference_and_no_word(text: str, at: int, hidden: str) -> None:
    disguised = text[:at] + hidden + text[at:] + f" {hidden}"
    keys = pl.DataFrame({"t": [text, disguised]}).select(normalise(pl.col("t")))["t"]
    assert first_equal_row([keys]).tolist() == [0, 0 if text.strip() else 1]
    counts = pl.DataFrame({"t": [text, disguised]}).select(word_count(pl.col("t"))).to_series().to_list()
    assert counts[0] == counts[1]
    flat, offsets = shingle_sets(pl.Series([text, disguised]), shingle=2)
    assert flat[: offsets[1]].tolist() == flat[offsets[1] :].tolist()
