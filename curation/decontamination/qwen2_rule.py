"""Qwen2: the longest common subsequence (Qwen Team 2024, arXiv 2407.10671, section 5.2.6).

Symbols and punctuation are removed from test and training sequences, which are then tokenised. A training sequence s
is removed when there is a test sequence e with |LCS(s, e)| >= 13 and |LCS(s, e)| >= 0.6 min(|s|, |e|). A subsequence
may have gaps.

What the paper leaves open, and what is done here: it calls the condition a further constraint on n-gram matching, but
names no n, and the formula alone says what is removed; so does the report of Qwen2.5 (arXiv 2412.15115, section 5).
The authors' note on Qwen2-Math, and SmolLM2 (arXiv 2502.02737), demand a shared 13-gram besides. Here the formula is
applied as it stands: it finds a copy in which every tenth word is another, and it also finds, in a long row, the
function words of a short item in their order. Tokens are words in lower case, not those of the model's tokeniser. The
prompt and the answer of a row are sequences of their own, as are the prompt of an item and its answer of 13 words or
more. The score is |LCS| / min(|s|, |e|).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl

from siftune.curation import schema
from siftune.curation.decontamination.benchmark_items import RULE_MATCHES, BenchmarkItems, RowBatch
from siftune.curation.decontamination.rule_kernels import common_subsequences
from siftune.curation.text.ngrams import TokenLists

#: The least length of the common subsequence, and its least share of the shorter sequence in tenths: 0.6.
LEAST_LENGTH = 13
LEAST_TENTHS = 6

_BLOCK_ROWS = 256
_THREADS = 2


class Qwen2Rule:
    """`qwen2-lcs` over batches of rows.

    The number of words that two texts share, repeated words as often as both have them, is never less than the length
    of their common subsequence. So the sequences are compared only where that number is large enough, which leaves
    nothing out.
    """

    def __init__(self, items: BenchmarkItems) -> None:
        self._items = items
        words = items.words
        self._vocabulary, self._item_words = np.unique(words.hashes, return_inverse=True)
        self._item_words = self._item_words.astype(np.int32)
        # For each word the texts that have it, and how often.
        text = np.repeat(np.arange(len(words.counts)), words.counts)
        counted = pl.DataFrame({"word": self._item_words, "text": text}).group_by("word", "text").agg(n=pl.len())
        counted = counted.sort("word", "text")
        self._texts = counted["text"].cast(pl.Int32).to_numpy()
        self._times = counted["n"].cast(pl.Int32).to_numpy()
        self._starts = np.searchsorted(counted["word"].to_numpy(), np.arange(len(self._vocabulary) + 1))
        self._matches = [pl.DataFrame(schema=RULE_MATCHES)]
        self.notes: dict[str, str] = {}

    def read(self, batch: RowBatch) -> None:
        """Compare the rows of a batch with the items."""
        for part, words in (("prompt", batch.prompt), ("answer", batch.answer)):
            self._matches.append(self._find(words, part, batch.first_row))

    def gathered(self) -> list[pl.DataFrame]:
        """See `siftune.curation.decontamination.published_rules.RuleSearch`."""
        return [pl.concat(self._matches)]

    def add(self, frames: list[pl.DataFrame]) -> None:
        """See `siftune.curation.decontamination.published_rules.RuleSearch`."""
        self._matches += frames

    def matches(self, ids: pl.Series) -> pl.DataFrame:
        """RULE_MATCHES of all rows read so far."""
        matches = pl.concat(self._matches)
        removing = np.zeros(2 * self._items.count, np.bool_)
        removing[matches["item"].to_numpy()] = True
        self.notes["qwen2-lcs"] = f"items that remove a row: {self._items.count_by_benchmark(removing)}"
        return matches

    def _find(self, rows: TokenLists, part: str, first_row: int) -> pl.DataFrame:
        number = np.searchsorted(self._vocabulary, rows.hashes).astype(np.int32)
        number[number == len(self._vocabulary)] = 0
        known = self._vocabulary[number] == rows.hashes if len(self._vocabulary) else np.zeros(len(number), np.bool_)
        row_words = np.where(known, number, -1).astype(np.int32)

        def compare(start: int) -> np.ndarray:
            stop = min(start + _BLOCK_ROWS, len(rows.counts))
            return common_subsequences(
                start, stop, row_words, rows.offsets,
                self._starts, self._texts, self._times, self._item_words, self._items.words.offsets,
                LEAST_LENGTH, LEAST_TENTHS,
            )  # fmt: skip

        with ThreadPoolExecutor(_THREADS) as pool:
            blocks = list(pool.map(compare, range(0, len(rows.counts), _BLOCK_ROWS)))
        row, text, length = np.concatenate([np.empty((0, 3), np.int64), *blocks]).T
        shorter = np.minimum(rows.counts[row], self._items.words.counts[text])
        matched = pl.DataFrame(
            {
                "row": row + first_row,
                "item": self._items.item_of(text),
                "score": length / np.maximum(shorter, 1),
                "span": self._items.texts.gather(text),
            }
        )
        named = matched.with_columns(rule=pl.lit("qwen2-lcs"), part=pl.lit(part))
        return schema.conform(named, RULE_MATCHES)
