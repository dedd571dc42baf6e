"""The rules that look at shared words, over batches of texts."""

from __future__ import annotations

import polars as pl

from siftune.curation.decontamination.overlap_rules import NgramRules, WholeItemRule
from siftune.curation.text import ngrams


def test_whole_items_ignore_layout_only() -> None:
    rule = WholeItemRule(pl.Series(["Name the largest planet of them all.", ""]))
    texts = pl.Series(["name the largest  planet of them all", "Name the smallest planet of them all.", ""])
    assert rule.equal(texts).rows() == [(0, 0)]


def test_the_share_over_all_rows_counts_each_word_once() -> None:
    rules = NgramRules(ngrams.split_words(pl.Series(["a b c d e f g h i j", "x"])), {"llama3-token-ratio"})
    for text in ("a b c d e f g h", "b c d e f g h i", "nothing here"):
        rules.find(ngrams.split_words(pl.Series([text])))
    assert rules.covered_shares().tolist() == [0.9, 0.0]
