from __future__ import annotations

import unicodedata

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation.dedup.exact import first_equal_row
from siftune.curation.text.words import normalise


def first_rows(texts: list[str]) -> list[int]:
    seen: dict[str, int] = {}
    first = []
    for row, text in enumerate(texts):
        key = " ".join(unicodedata.normalize("NFC", text).split())
        first.append(seen.setdefault(key, row) if key else row)
    return first


def normalised(texts: list[str | None]) -> pl.Series:
    return pl.Series("text", texts, dtype=pl.String).to_frame().select(normalise(pl.col("text")))["text"]


SAID = st.text(st.sampled_from("ab A\n\te\u0301é日"), max_size=5)


@given(st.lists(SAID, max_size=20), st.integers(0, 20))
def test_groups_are_those_of_a_dictionary(texts: list[str], cut: int) -> None:
    series = normalised(texts)
    assert first_equal_row([series[:cut], series[cut:]]).tolist() == first_rows(texts)


def test_empty_texts_are_nobodys_duplicates() -> None:
    assert first_equal_row([normalised(["", None, " \n", "a", "", "a "])]).tolist() == [0, 1, 2, 3, 4, 3]


def test_no_rows() -> None:
    assert first_equal_row([]).dtype == np.int64
    assert first_equal_row([pl.Series([], dtype=pl.String)]).size == 0
