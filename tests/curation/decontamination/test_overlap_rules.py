"""Short items that stand whole in a row, over batches of texts."""

from __future__ import annotations

import polars as pl

from siftune.curation.decontamination.overlap_rules import WholeItemRule


def test_whole_items_ignore_layout_only() -> None:
    rule = WholeItemRule(pl.Series(["Name the largest planet of them all.", ""]))
    texts = pl.Series(["name the largest  planet of them all", "Name the smallest planet of them all.", ""])
    assert rule.equal(texts).rows() == [(0, 0)]
