"""Shared n-grams of texts against brute force."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation.text import ngrams

WORDS = st.lists(st.sampled_from("abcd"), max_size=30)


@given(
    text=st.lists(WORDS, min_size=1, max_size=4), item=st.lists(WORDS, min_size=1, max_size=4), size=st.integers(1, 4)
)
def test_overlaps_are_those_of_brute_force(text: list[list[str]], item: list[list[str]], size: int) -> None:
    overlaps = ngrams.NgramIndex(ngrams.split_words(pl.Series([" ".join(w) for w in item])), size).overlaps(
        ngrams.split_words(pl.Series([" ".join(w) for w in text]))
    )
    truth = {}
    for a, left in enumerate(text):
        for b, right in enumerate(item):
            shared = [
                (i, j)
                for i in range(len(left) - size + 1)
                for j in range(len(right) - size + 1)
                if left[i : i + size] == right[j : j + size]
            ]
            if shared:
                covered = {j + step for _, j in shared for step in range(size)}
                longest = max(common_prefix(left[i:], right[j:]) for i, j in shared)
                truth[a, b] = (len(covered), longest)
    assert {(row["text"], row["item"]): (row["covered"], row["longest"]) for row in overlaps.to_dicts()} == truth
    for row in overlaps.to_dicts():
        run = text[row["text"]][row["start"] : row["start"] + row["longest"]]
        assert len(run) == row["longest"]
        assert " ".join(run) in " ".join(item[row["item"]])


def common_prefix(a: list[str], b: list[str]) -> int:
    return next((position for position, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def test_spans_are_the_words_of_the_text() -> None:
    words = ngrams.split_words(pl.Series(["One two, three.", None, "four five"]))
    spans = words.spans(np.array([2, 0, 0]), np.array([0, 1, 0]), np.array([2, 2, 0]))
    assert spans.to_list() == ["four five", "two three", ""]
