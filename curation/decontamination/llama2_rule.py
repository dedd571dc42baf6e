"""Llama 2: tokens in runs that may differ in a few places (Touvron et al. 2023, arXiv 2307.09288, appendix A.6).

- A token of an evaluation sample is contaminated when it lies in a span of more than 10 tokens that the sample shares
  with the training set.
- The two sides of a span may differ in at most four positions (the "skipgram budget"), but not in the first 10 tokens
  and not at the end.
- A sample is clean below 20 % contaminated tokens, and dirty from 80 % on. The paper also counts "not clean" (from
  20 % on) and "not dirty" (below 80 %): these are what the two leave.

What the paper leaves open, and what is done here: tokens are words in lower case without punctuation, not those of a
model's tokeniser, and samples are items as they stand, without the words of an evaluation's template. A word that
differs inside a span is not contaminated, since the other side does not have it. The paper does not say which training
rows are to go: reported are those that share a span with a dirty item; the score is the item's share of contaminated
words. An item has its prompt, and its answer where that has 13 words or more, as texts of their own. The paper repeats
its analysis with longer spans (20 to 50 tokens) to find out which samples helped a model; curation has no model.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from siftune.curation.decontamination.benchmark_items import RULE_MATCHES, BenchmarkItems, RowBatch
from siftune.curation.decontamination.gram_postings import RUNS, GramPostings
from siftune.curation.decontamination.rule_kernels import extend_seeds
from siftune.curation.text.ngrams import TokenLists

#: Tokens at the start of a span that must be equal; a span is longer than this.
SEED_WORDS = 10
#: Positions in which the two sides of a span may differ.
SKIP_BUDGET = 4
#: A sample is clean below the first and dirty from the second share of contaminated tokens on.
CLEAN_SHARE = 0.2
DIRTY_SHARE = 0.8


class Llama2Rule:
    """`llama2-skipgram` over batches of rows."""

    def __init__(self, items: BenchmarkItems) -> None:
        self._items = items
        self._postings = GramPostings(items.words, SEED_WORDS)
        self._contaminated = np.zeros(len(items.words.hashes), np.bool_)
        self._spans = [pl.DataFrame(schema=RUNS)]
        self.notes: dict[str, str] = {}

    def read(self, batch: RowBatch) -> None:
        """Look for spans that rows of a batch share with items."""
        for part, words in (("prompt", batch.prompt), ("answer", batch.answer)):
            self._spans.append(self._find(words, part, batch.first_row))

    def gathered(self) -> list[pl.DataFrame]:
        """See `siftune.curation.decontamination.published_rules.RuleSearch`."""
        return [pl.DataFrame({"is_contaminated": self._contaminated}), pl.concat(self._spans)]

    def add(self, frames: list[pl.DataFrame]) -> None:
        """See `siftune.curation.decontamination.published_rules.RuleSearch`."""
        contaminated, spans = frames
        self._contaminated |= contaminated["is_contaminated"].to_numpy()
        self._spans.append(spans)

    def matches(self, ids: pl.Series) -> pl.DataFrame:
        """RULE_MATCHES of all rows read so far."""
        words = self._items.words
        cumulative = np.concatenate([[0], np.cumsum(self._contaminated)])
        share = (cumulative[words.offsets[1:]] - cumulative[words.offsets[:-1]]) / np.maximum(words.counts, 1)
        spans = pl.concat(self._spans)
        spans = spans.with_columns(score=share[spans["text"].to_numpy()]).filter(pl.col("score") >= DIRTY_SHARE)
        dirty = self._items.count_by_benchmark(share >= DIRTY_SHARE)
        unclean = self._items.count_by_benchmark(share >= CLEAN_SHARE)
        self.notes["llama2-skipgram"] = (
            f"dirty items (from {DIRTY_SHARE:.0%} of their tokens on): {dirty}; items that are not clean "
            f"(from {CLEAN_SHARE:.0%} on): {unclean}"
        )
        return pl.concat([pl.DataFrame(schema=RULE_MATCHES), self._items.matches_of_runs("llama2-skipgram", spans)])

    def _find(self, rows: TokenLists, part: str, first_row: int) -> pl.DataFrame:
        """RUNS: the longest span of each row and item text."""
        row, position, gram = self._postings.find(rows)
        words, postings = self._items.words, self._postings
        extended = extend_seeds(
            row, position, gram, rows.hashes, rows.offsets,
            postings.starts, postings.text, postings.position, words.hashes, words.offsets, self._contaminated,
            SEED_WORDS, SKIP_BUDGET,
        )  # fmt: skip
        spans = pl.DataFrame(dict(zip(("row", "text", "start", "length"), extended.T, strict=True)))
        longest = spans.sort("row", "text", "length", "start", descending=[False, False, True, False])
        longest = longest.unique(["row", "text"], keep="first", maintain_order=True)
        return longest.select(pl.col("row") + first_row, pl.lit(part).alias("part"), "text", "start", "length")
