"""PaLM, Llama 3 and Tülu 3: the contamination rules that look at shared 8-grams of words.

`palm-8gram` (Chowdhery et al. 2022, arXiv 2204.02311, section 8): an example is contaminated when at least 70 % of the
8-grams in its question, prompt or target occur at least once in the training data.

`llama3-token-ratio` (Llama Team 2024, arXiv 2407.21783, section 5.1.4): an example of a dataset D is contaminated when
a ratio T_D of its tokens are part of an 8-gram that occurs at least once in the training corpus. T_D is chosen for
each dataset by the performance gain that it shows in the trained models. Curation has no model, so the recipe gives
T_D (`token_ratios`), and where it does not, it is 0.8, from which on Llama 2 calls an example dirty (arXiv 2307.09288,
appendix A.6).

`tulu3-8gram` (Lambert et al. 2024, arXiv 2411.15124, section 3.2): prompts alone are compared, since answers are often
generated anew. A token of a test prompt matches a training prompt when both share an 8-gram that holds the token; the
two overlap when more than 50 % of the test tokens match the same training prompt. A training set is contaminated when
its prompts overlap with more than 2 % of the instances of any evaluation. A source of the recipe is a training set.

What the papers leave open, and what is done here:

- Tokens are words in lower case without punctuation (`siftune.curation.text.words`). PaLM and Llama 3 do not say which
  tokens they count; the code of Tülu 3 counts the tokens of spaCy and searches a lower-cased index without punctuation.
- The first two say when an example is contaminated, not which training rows are to go. Reported are the rows that
  share an 8-gram with an item that all rows together contaminate; the score is the item's share.
- An item has its prompt, and its answer where that has 13 words or more, as texts of their own; one of them is enough.
- A text of fewer than 8 words has no 8-gram, and never matches.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.decontamination.benchmark_items import RULE_MATCHES, BenchmarkItems, RowBatch, format_share
from siftune.curation.decontamination.gram_postings import OCCURRENCES, RUNS, GramPostings, covered_words, longest_runs

#: Words in an n-gram of all three rules.
GRAM_WORDS = 8
#: palm-8gram: at least this share of an example's 8-grams (section 8).
PALM_SHARE = 0.7
#: llama3-token-ratio: T_D where the recipe gives none (see above).
DEFAULT_TOKEN_RATIO = 0.8
#: tulu3-8gram: more than this share of a test prompt's tokens, and of an evaluation's instances (section 3.2).
TULU_TOKEN_SHARE = 0.5
TULU_SET_SHARE = 0.02


class EightGramRules:
    """The three rules over batches of rows; what they share is searched once.

    Args:
        items: the benchmark items.
        rules: which of the three are applied.
        token_ratios: T_D of llama3-token-ratio by benchmark.
    """

    names = ("palm-8gram", "llama3-token-ratio", "tulu3-8gram")

    def __init__(self, items: BenchmarkItems, rules: set[str], token_ratios: Mapping[str, float]) -> None:
        self._items = items
        self._rules = rules
        self._token_ratios = token_ratios
        self._postings = GramPostings(items.words, GRAM_WORDS)
        self._occurrences: list[pl.DataFrame] = []
        self.notes: dict[str, str] = {}

    def read(self, batch: RowBatch) -> None:
        """Look for the items' 8-grams in a batch of rows."""
        prompts = self._postings.occurrences(batch.prompt, "prompt", batch.first_row)
        answers = self._postings.occurrences(batch.answer, "answer", batch.first_row)
        self._occurrences.append(pl.concat([prompts, answers]))

    def gathered(self) -> list[pl.DataFrame]:
        """See `siftune.curation.decontamination.published_rules.RuleSearch`."""
        return [pl.concat([pl.DataFrame(schema=OCCURRENCES), *self._occurrences])]

    def add(self, frames: list[pl.DataFrame]) -> None:
        """See `siftune.curation.decontamination.published_rules.RuleSearch`."""
        self._occurrences += frames

    def matches(self, ids: pl.Series) -> pl.DataFrame:
        """RULE_MATCHES of all rows read so far; `ids` are theirs (`source:row`)."""
        frames = [pl.DataFrame(schema=RULE_MATCHES)]
        if "palm-8gram" in self._rules:
            share = self._gram_shares()
            dirty = share >= PALM_SHARE
            frames.append(self._rows_of("palm-8gram", share, dirty))
            counts = self._items.count_by_benchmark(dirty)
            self.notes["palm-8gram"] = f"items with at least {PALM_SHARE:.0%} of their 8-grams: {counts}"
        if "llama3-token-ratio" in self._rules:
            share = self._token_shares()
            ratio = self._items.benchmarks.replace_strict(
                self._token_ratios, default=DEFAULT_TOKEN_RATIO, return_dtype=pl.Float64
            )
            dirty = share >= np.tile(ratio.to_numpy(), 2)
            frames.append(self._rows_of("llama3-token-ratio", share, dirty))
            counts = self._items.count_by_benchmark(dirty)
            self.notes["llama3-token-ratio"] = f"items that reach the token ratio of their benchmark: {counts}"
        if "tulu3-8gram" in self._rules:
            overlaps = self._prompt_overlaps()
            frames.append(overlaps)
            self.notes["tulu3-8gram"] = self._note_of_sets(overlaps, ids)
        return pl.concat(frames)

    def _seen_places(self) -> NDArray[np.bool_]:
        """Whether the 8-gram at each place of the postings is in any row, bool [p]."""
        seen = np.zeros(self._postings.count, np.bool_)
        for occurrences in self._occurrences:
            seen[occurrences["gram"].to_numpy()] = True
        return seen[self._postings.gram]

    def _gram_shares(self) -> NDArray[np.float64]:
        """The share of each text's 8-grams that any row has, float64 [t]; 0 where it has none."""
        texts = len(self._items.words.counts)
        total = np.bincount(self._postings.text, minlength=texts)
        seen = np.bincount(self._postings.text, weights=self._seen_places(), minlength=texts)
        return seen / np.maximum(total, 1)

    def _token_shares(self) -> NDArray[np.float64]:
        """The share of each text's words in 8-grams that any row has, float64 [t]; 0 where it has none."""
        words = self._items.words
        seen = self._seen_places()
        starts = words.offsets[self._postings.text[seen]] + self._postings.position[seen]
        # +1 where an 8-gram begins and -1 where it ends: a word is covered where the running sum is positive.
        changes = np.zeros(len(words.hashes) + GRAM_WORDS, np.int64)
        changes[starts] += 1
        changes[starts + GRAM_WORDS] -= 1
        cumulative = np.concatenate([[0], np.cumsum(np.cumsum(changes)[: len(words.hashes)] > 0)])
        return (cumulative[words.offsets[1:]] - cumulative[words.offsets[:-1]]) / np.maximum(words.counts, 1)

    def _rows_of(self, rule: str, share: NDArray[np.float64], dirty: NDArray[np.bool_]) -> pl.DataFrame:
        """RULE_MATCHES of the rows that share an 8-gram with a dirty text (bool [t])."""
        shared = [
            longest_runs(self._postings.pairs(occurrences, dirty), GRAM_WORDS) for occurrences in self._occurrences
        ]
        runs = pl.concat([pl.DataFrame(schema=RUNS), *shared])
        return self._items.matches_of_runs(rule, runs.with_columns(score=share[runs["text"].to_numpy()]))

    def _prompt_overlaps(self) -> pl.DataFrame:
        """RULE_MATCHES of tulu3-8gram."""
        texts = np.arange(2 * self._items.count)
        counts = pl.DataFrame({"text": texts, "words": self._items.words.counts})
        overlaps = [pl.DataFrame(schema={**RUNS, "score": pl.Float64})]
        for occurrences in self._occurrences:
            of_prompts = occurrences.filter(pl.col("part") == "prompt")
            pairs = self._postings.pairs(of_prompts, texts < self._items.count)
            covered = covered_words(pairs, GRAM_WORDS).join(counts, on="text", how="left", maintain_order="left")
            overlapping = covered.select("row", "text", score=pl.col("covered") / pl.col("words"))
            overlapping = overlapping.filter(pl.col("score") > TULU_TOKEN_SHARE)
            chosen = pairs.join(overlapping, on=["row", "text"], how="semi")
            runs = longest_runs(chosen, GRAM_WORDS)
            overlaps.append(runs.join(overlapping, on=["row", "text"], how="inner", maintain_order="left"))
        return self._items.matches_of_runs("tulu3-8gram", pl.concat(overlaps))

    def _note_of_sets(self, overlaps: pl.DataFrame, ids: pl.Series) -> str:
        """Which sources overlap with how many items of each benchmark."""
        sizes = dict(self._items.benchmarks.value_counts().iter_rows())
        pairs = pl.DataFrame(
            {
                "source": ids.gather(overlaps["row"]).str.replace(r":[^:]*$", ""),
                "benchmark": self._items.benchmarks.gather(overlaps["item"]),
                "item": overlaps["item"],
            }
        )
        counts = pairs.group_by("source", "benchmark").agg(pl.col("item").n_unique()).sort("source", "benchmark")
        sets = []
        for source, benchmark, count in counts.iter_rows():
            verdict = ", contaminated" if count > TULU_SET_SHARE * sizes[benchmark] else ""
            sets.append(f"{source} with {benchmark} {format_share(count, sizes[benchmark])}{verdict}")
        rule = f"a source is contaminated when it overlaps with more than {TULU_SET_SHARE:.0%} of a benchmark"
        return f"{rule}: {'; '.join(sets) or 'no source overlaps with any item'}"
