from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation.text.words import key_text, normalise, word_count
from siftune.curation.text.words import words as words_of


def words(text: str) -> list[str]:
    return pl.DataFrame({"t": [text]}).select(words_of(pl.col("t"))).item().to_list()


def test_words_of_all_scripts() -> None:
    assert words("Hello, WORLD_1 it's") == ["hello", "world_1", "it", "s"]
    assert words("日本語テスト") == list("日本語テスト")
    assert words("สวัสดี") == list("สวัสดี")
    assert words("안녕 하세요") == ["안녕", "하세요"]
    assert words("ＡＢＣ １２") == ["abc", "12"]
    assert words("?!  …") == ["?! ..."]
    assert words("🙂🙂") == ["🙂🙂"]
    assert words(" \n ") == []
    assert words("") == []


def test_word_count_counts_words_only() -> None:
    counted = pl.DataFrame({"t": ["two words", "?!", "", "日本", None]}).select(word_count(pl.col("t")))
    assert counted.to_series().to_list() == [2, 0, 0, 2, None]


@given(st.text())
def test_normalise_is_idempotent_and_has_single_spaces(text: str) -> None:
    once = pl.DataFrame({"t": [text]}).select(normalise(pl.col("t"))).item()
    twice = pl.DataFrame({"t": [once]}).select(normalise(pl.col("t"))).item()
    assert once == twice
    assert "  " not in once
    assert once == once.strip(" ")


def test_normalise_keeps_case_and_forgets_layout() -> None:
    texts = pl.DataFrame({"t": ["if  a:\n\treturn\u00a0B ", "if a: return B", "if a: return b", "e\u0301", "é"]})
    forms = texts.select(normalise(pl.col("t"))).to_series().to_list()
    assert forms[0] == forms[1] != forms[2]
    assert forms[3] == forms[4]


def test_key_text() -> None:
    frame = pl.DataFrame({"prompt": ["P c"], "core": ["c"], "answer": ["a"]})
    chosen = [frame.select(key_text(key)).item() for key in ("prompt", "dialogue", "answer")]
    assert chosen == ["c", "c\na", "a"]
