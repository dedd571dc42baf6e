"""GPT-3: the 13-gram filter (Brown et al. 2020, arXiv 2005.14165, section 4 and appendix C).

As the appendix has it:

- A gram is a lower-case word without punctuation, between white space: "don't" is one word.
- A training document collides with an example when the two share an N-gram. For each dataset N is the 5th percentile
  of the examples' lengths in words, at least 8 and at most 13.
- Examples of fewer than 8 words are ignored.
- N-grams that match more than 10 training documents are ignored: most are phrases that many texts share.

Not applied: the paper cuts the N-gram and 200 characters on both sides out of the document, keeps the pieces of 200
characters and more, and removes a document that falls into more than 10 pieces. Here a row that collides is reported
whole: half of an answer is no answer.

What the paper leaves open, and what is done here: the percentile is by nearest rank, over the prompts of a benchmark
(the range of 8 to 13 is for tasks that are not synthetic; all are taken for such). A document is a row; n-grams do not
reach from its prompt into its answer. An item has its prompt, and its answer where that has 13 words or more, as texts
of their own. The score is the share of the text's words inside N-grams that collide.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.decontamination.benchmark_items import RULE_MATCHES, BenchmarkItems, RowBatch
from siftune.curation.decontamination.gram_postings import OCCURRENCES, GramPostings, covered_words, longest_runs, only
from siftune.curation.text import ngrams
from siftune.curation.text.ngrams import TokenLists

#: N is at least and at most this (appendix C, "Overlap methodology").
LEAST_N = 8
MOST_N = 13
#: The percentile of the example lengths that N is.
PERCENTILE = 5
#: Shorter examples are ignored (appendix C, "Overlap results").
LEAST_WORDS = 8
#: N-grams in more training documents than this are ignored (appendix C, "Initial training set filtering").
MOST_DOCUMENTS = 10


class Gpt3Rule:
    """`gpt3-13gram` over batches of rows."""

    def __init__(self, items: BenchmarkItems) -> None:
        self._items = items
        self._words = gram_words(items.texts)
        size = np.tile(example_gram_sizes(items), 2)
        long_enough = self._words.counts >= LEAST_WORDS
        self._searches = [
            _RareGrams(GramPostings(only(self._words, long_enough & (size == n)), n)) for n in np.unique(size).tolist()
        ]
        self.notes: dict[str, str] = {}

    def read(self, batch: RowBatch) -> None:
        """Look for the items' N-grams in a batch of rows."""
        prompts, answers = (gram_words(texts) for texts in batch.texts)
        for search in self._searches:
            search.read(prompts, answers, batch.first_row)

    def gathered(self) -> list[pl.DataFrame]:
        """See `siftune.curation.decontamination.published_rules.RuleSearch`."""
        return [frame for search in self._searches for frame in search.gathered()]

    def add(self, frames: list[pl.DataFrame]) -> None:
        """See `siftune.curation.decontamination.published_rules.RuleSearch`."""
        for number, search in enumerate(self._searches):
            search.add(*frames[2 * number : 2 * number + 2])

    def matches(self, ids: pl.Series) -> pl.DataFrame:
        """RULE_MATCHES of all rows read so far."""
        frames = [pl.DataFrame(schema=RULE_MATCHES)]
        for search in self._searches:
            pairs, size = search.pairs(), search.postings.size
            covered = covered_words(pairs, size)
            share = covered["covered"] / pl.Series(np.maximum(self._words.counts[covered["text"].to_numpy()], 1))
            runs = longest_runs(pairs, size).join(
                covered.with_columns(score=share), on=["row", "part", "text"], how="inner", maintain_order="left"
            )
            frames.append(self._items.matches_of_runs("gpt3-13gram", runs, self._words))
        matches = pl.concat(frames)
        dirty = np.zeros(2 * self._items.count, np.bool_)
        dirty[matches["item"].to_numpy()] = True
        self.notes["gpt3-13gram"] = f"items that collide with a row: {self._items.count_by_benchmark(dirty)}"
        return matches


class _RareGrams:
    """The occurrences of the n-grams of one size that at most MOST_DOCUMENTS rows have."""

    def __init__(self, postings: GramPostings) -> None:
        self.postings = postings
        self._documents = np.zeros(postings.count, np.int64)
        self._occurrences = [pl.DataFrame(schema=OCCURRENCES)]

    def read(self, prompts: TokenLists, answers: TokenLists, first_row: int) -> None:
        """Count the rows of a batch that have each n-gram, in the prompt or in the answer."""
        parts = (("prompt", prompts), ("answer", answers))
        occurrences = pl.concat([self.postings.occurrences(words, part, first_row) for part, words in parts])
        in_rows = occurrences.select("row", "gram").unique()["gram"].to_numpy()
        self._documents += np.bincount(in_rows, minlength=self.postings.count)
        # What is too frequent already will not become rare: so the memory is bounded by the n-grams, not by the rows.
        self._occurrences.append(self._rare(occurrences))

    def gathered(self) -> list[pl.DataFrame]:
        """In how many rows each n-gram was, and the occurrences of those that are rare so far."""
        return [pl.DataFrame({"rows": self._documents}), self._rare(pl.concat(self._occurrences))]

    def add(self, documents: pl.DataFrame, occurrences: pl.DataFrame) -> None:
        """Add what was gathered of other rows."""
        self._documents += documents["rows"].to_numpy()
        self._occurrences.append(self._rare(occurrences))

    def pairs(self) -> pl.DataFrame:
        """As `GramPostings.pairs`, of the n-grams that are rare among all rows read."""
        every_text = np.ones(len(self.postings.texts.counts), np.bool_)
        return self.postings.pairs(self._rare(pl.concat(self._occurrences)), every_text)

    def _rare(self, occurrences: pl.DataFrame) -> pl.DataFrame:
        return occurrences.filter(pl.Series(self._documents[occurrences["gram"].to_numpy()] <= MOST_DOCUMENTS))


def gram_words(texts: pl.Series) -> TokenLists:
    """The words of each text (String[n]) as the paper has them: lower case, no punctuation, between white space."""
    plain = pl.col("text").fill_null("").str.normalize("NFKC").str.to_lowercase().str.replace_all(r"[^\w\s]+|_", "")
    return ngrams.token_lists(texts.to_frame("text").select(plain.str.extract_all(r"\S+"))["text"])


def example_gram_sizes(items: BenchmarkItems) -> NDArray[np.int64]:
    """N of the benchmark of each item, int64 [n]."""
    lengths = pl.DataFrame({"benchmark": items.benchmarks, "words": gram_words(items.prompts).counts})
    rank = (pl.len() * PERCENTILE / 100).ceil().cast(pl.Int64) - 1
    n = pl.col("words").sort().get(rank).clip(LEAST_N, MOST_N).over("benchmark")
    return lengths.select(n).to_series().to_numpy()
