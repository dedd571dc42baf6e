"""decon of the Allen Institute for AI (github.com/allenai/decon; Olmo 3 report, appendix A.5): weighed 5-grams.

As its documentation (doc/simple-details.md) and code (src/detect) have it, with their default parameters:

- Items of fewer than 20 tokens or 4 different words, question and answer together, are left out, and so are rows of
  fewer than 10 tokens.
- A cluster is a part of a row: from an n-gram of 5 tokens that the question has too, in both directions, until 11
  n-grams in a row bring none of the question's.
- O_q = the summed idf of the question's different n-grams in the cluster over that of all of its n-grams, where idf =
  ln(items / items whose question has the n-gram). A question of fewer than 5 tokens is one n-gram of its own length.
- O_a = where an answer of at most 3 tokens stands as a whole in the 50 tokens after the cluster, 1, otherwise 0. For a
  longer answer, the idf-weighted share of its 3-grams in the next max(100, 2 x its length) tokens. Where the cluster is
  longer than the question, the search begins earlier by the difference.
- The score is 0.75 O_q + 0.25 O_a, or O_q for an item that has no answer. A question of N < 20 different n-grams has
  its weight multiplied by 0.5 + 0.5 N / 20, and what it loses goes to the answer.
- The score must reach 1 where question and answer (its different tokens) have 20 tokens or fewer together, 0.8 from 50
  on, and what lies on the line between. O_q alone must reach 1 for questions of up to 20 tokens, falling to 5/7 at 50
  (what 0.8 demands of a question with perfect answer and passage).

What differs here: tokens are words in lower case without punctuation (decon: cl100k after removing punctuation). decon
looks at every 10th n-gram of a row for the first of a cluster, and can miss a cluster that lies inside another item's;
here every n-gram is looked at. decon's repeated n-grams do not end a cluster but do not prolong it either; here any
n-gram of the question prolongs it. Items have no passage of their own (reading passages are part of the prompt), and
an item that a reference holds twice counts twice in idf. An answer that stands in front of the question is not sought.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation import schema
from siftune.curation.decontamination.benchmark_items import RULE_MATCHES, BenchmarkItems, RowBatch
from siftune.curation.decontamination.gram_postings import GramPostings, only
from siftune.curation.decontamination.rule_kernels import rows_with_idf
from siftune.curation.text import ngrams
from siftune.curation.text.ngrams import TokenLists

#: config/default.yaml and src/common: ngram_size, answer_ngram_size, question_max_consecutive_misses.
QUESTION_GRAM = 5
ANSWER_GRAM = 3
MISSES = 11
#: eval_min_token_length, eval_min_unique_word_count; rows need twice the n-gram size.
LEAST_ITEM_WORDS = 20
LEAST_DIFFERENT_WORDS = 4
LEAST_ROW_WORDS = 2 * QUESTION_GRAM
#: short_answer_token_threshold, short_answer_window_length, min_long_answer_window.
SHORT_ANSWER_WORDS = 3
SHORT_ANSWER_WINDOW = 50
LONG_ANSWER_WINDOW = 100
#: contamination_score_threshold, perfect_match_decay_start, perfect_match_decay_end.
THRESHOLD = 0.8
DECAY_START = 20
DECAY_END = 50
#: src/detect/scoring.rs: the weights of question and answer, the n-grams of a question with its full weight, and the
#: least O_q that can reach the threshold: (0.8 - 0.3) / 0.7.
QUESTION_WEIGHT = 0.75
INFORMATIVE_GRAMS = 20
LEAST_QUESTION_OVERLAP = (THRESHOLD - 0.3) / 0.7

#: Sums of idf are compared with a threshold: more than their rounding errors, less than any difference of interest.
_ROUNDING = 1e-9


class DeconRule:
    """`decon` over batches of rows.

    An item is verified in a row only where the whole row has n-grams enough of its question: no cluster has more.
    """

    def __init__(self, items: BenchmarkItems) -> None:
        self._items = items
        questions, answers = ngrams.split_words(items.prompts), items.answer_words
        both = ngrams.split_words(items.prompts + " " + items.answers)
        indexed = (both.counts >= LEAST_ITEM_WORDS) & (_different(both) >= LEAST_DIFFERENT_WORDS)
        indexed &= questions.counts > 0
        self._answers = only(answers, indexed)
        self._words = questions.counts + _different(answers)
        total = int(indexed.sum())
        self._questions = [
            _WeighedGrams(only(questions, indexed & (np.minimum(questions.counts, QUESTION_GRAM) == size)), size, total)
            for size in range(1, QUESTION_GRAM + 1)
        ]
        long_answers = only(answers, indexed & (answers.counts > SHORT_ANSWER_WORDS))
        self._answer_grams = _WeighedGrams(long_answers, ANSWER_GRAM, total)
        self._matches = [pl.DataFrame(schema=RULE_MATCHES)]
        self.notes: dict[str, str] = {}

    def read(self, batch: RowBatch) -> None:
        """Compare the rows of a batch with the items."""
        for grams in self._questions:
            if grams.postings.count:
                self._matches.append(self._find(batch, grams))

    def gathered(self) -> list[pl.DataFrame]:
        """See `siftune.curation.decontamination.published_rules.RuleSearch`."""
        return [pl.concat(self._matches)]

    def add(self, frames: list[pl.DataFrame]) -> None:
        """See `siftune.curation.decontamination.published_rules.RuleSearch`."""
        self._matches += frames

    def matches(self, ids: pl.Series) -> pl.DataFrame:
        """RULE_MATCHES of all rows read so far."""
        matches = pl.concat(self._matches)
        matched = np.zeros(2 * self._items.count, np.bool_)
        matched[matches["item"].to_numpy()] = True
        self.notes["decon"] = f"items that a row holds: {self._items.count_by_benchmark(matched)}"
        return matches

    def _find(self, batch: RowBatch, grams: _WeighedGrams) -> pl.DataFrame:
        rows = only(batch.documents, batch.documents.counts >= LEAST_ROW_WORDS)
        row, position, gram = grams.postings.find(rows)
        bounds = np.searchsorted(row, np.arange(len(rows.counts) + 1))
        candidates = rows_with_idf(
            bounds, gram, grams.starts, grams.texts, grams.idf, LEAST_QUESTION_OVERLAP * grams.totals - _ROUNDING
        )
        candidate_rows = np.zeros(len(rows.counts), np.bool_)
        candidate_rows[candidates[:, 0]] = True
        answer_row, answer_position, answer_gram = self._answer_grams.postings.find(only(rows, candidate_rows))
        answer_bounds = np.searchsorted(answer_row, np.arange(len(rows.counts) + 1))
        verified = []
        for number, item in candidates.tolist():
            of_row, of_answer = slice(*bounds[number : number + 2]), slice(*answer_bounds[number : number + 2])
            own = np.isin(gram[of_row], grams.of_text(item))
            words = rows.hashes[rows.offsets[number] : rows.offsets[number + 1]]
            trigrams = (answer_position[of_answer], answer_gram[of_answer])
            clusters = _clusters(position[of_row][own], gram[of_row][own])
            scored = [self._judge(cluster, item, grams, words, trigrams) for cluster in clusters]
            best = max((match for match in scored if match is not None), default=None)
            if best is not None:
                verified.append((number, item, *best))
        columns = ("row", "item", "score", "start", "length")
        types = (pl.Int64, pl.Int64, pl.Float64, pl.Int64, pl.Int64)
        matched = pl.DataFrame(verified, schema=dict(zip(columns, types, strict=True)), orient="row")
        in_row = matched["row"].to_numpy()
        prompt_words = pl.Series(batch.prompt.counts[in_row])
        end = matched["start"] + matched["length"]
        part = pl.when(end <= prompt_words).then(pl.lit("prompt")).when(matched["start"] >= prompt_words)
        named = matched.with_columns(
            part.then(pl.lit("answer")).otherwise(pl.lit("both")).alias("part"),
            pl.lit("decon").alias("rule"),
            rows.spans(in_row, matched["start"].to_numpy(), matched["length"].to_numpy()).alias("span"),
            row=pl.col("row") + batch.first_row,
        )
        return schema.conform(named, RULE_MATCHES)

    def _judge(
        self,
        cluster: _Cluster,
        item: int,
        grams: _WeighedGrams,
        words: NDArray[np.uint64],
        trigrams: tuple[NDArray[np.int64], NDArray[np.int64]],
    ) -> tuple[float, int, int] | None:
        """Score, first word and length of a cluster that is contaminated by the item; None for any other.

        Args:
            cluster: the cluster.
            item: the item.
            grams: the n-grams of the questions.
            words: uint64[w], the words of the row.
            trigrams: int64[m] each, positions and numbers of the answers' 3-grams in the row.
        """
        question_words = int(grams.postings.texts.counts[item])
        overlap = float(grams.idf[cluster.grams].sum() / grams.totals[item]) if grams.totals[item] > 0 else 0.0
        if overlap < _required(question_words, LEAST_QUESTION_OVERLAP) - _ROUNDING:
            return None
        length = cluster.last + grams.postings.size - cluster.first
        score = overlap
        if self._answers.counts[item]:
            after = cluster.first + min(length, question_words)
            confidence = min(1.0, 0.5 + 0.5 * len(grams.of_text(item)) / INFORMATIVE_GRAMS)
            weight = QUESTION_WEIGHT * confidence
            score = weight * overlap + (1 - weight) * self._answer_overlap(item, words, trigrams, after)
        if score < _required(int(self._words[item]), THRESHOLD) - _ROUNDING:
            return None
        return min(score, 1.0), cluster.first, length

    def _answer_overlap(
        self,
        item: int,
        words: NDArray[np.uint64],
        trigrams: tuple[NDArray[np.int64], NDArray[np.int64]],
        start: int,
    ) -> float:
        """O_a: how much of an item's answer stands in a row from the word `start` on; the rest as in `_judge`."""
        answer = self._answers.hashes[self._answers.offsets[item] : self._answers.offsets[item + 1]]
        if len(answer) <= SHORT_ANSWER_WORDS:
            starts = range(start, start + SHORT_ANSWER_WINDOW)
            return float(any(np.array_equal(words[first : first + len(answer)], answer) for first in starts))
        total = self._answer_grams.totals[item]
        window_end = min(start + max(2 * len(answer), LONG_ANSWER_WINDOW), len(words))
        position, gram = trigrams
        inside = np.unique(gram[(position >= start) & (position + ANSWER_GRAM <= window_end)])
        shared = np.intersect1d(inside, self._answer_grams.of_text(item))
        return float(self._answer_grams.idf[shared].sum() / total) if total > 0 else 0.0


class _WeighedGrams:
    """The n-grams of questions or answers, with their idf.

    Attributes:
        postings: where they stand.
        idf: float64[g], ln(items / items that have the n-gram).
        totals: float64[n], the summed idf of each item's different n-grams.
        starts, texts: n-gram g is in the items `texts[k]`, for k from `starts[g]` to `starts[g + 1]`.
    """

    def __init__(self, texts: TokenLists, size: int, total: int) -> None:
        self.postings = GramPostings(texts, size)
        pairs = pl.DataFrame({"gram": self.postings.gram, "text": self.postings.text}).unique().sort("gram", "text")
        gram, self.texts = pairs["gram"].to_numpy(), pairs["text"].to_numpy()
        self.starts = np.searchsorted(gram, np.arange(self.postings.count + 1))
        self.idf = np.log(total / np.diff(self.starts))
        self.totals = np.bincount(self.texts, weights=self.idf[gram], minlength=len(texts.counts))
        order = np.argsort(self.texts, kind="stable")
        self._gram_of_text = gram[order]
        self._text_starts = np.searchsorted(self.texts[order], np.arange(len(texts.counts) + 1))

    def of_text(self, text: int) -> NDArray[np.int64]:
        """The different n-grams of a text, int64 [g]."""
        return self._gram_of_text[self._text_starts[text] : self._text_starts[text + 1]]


@dataclass(frozen=True)
class _Cluster:
    """The first and the last n-gram of a cluster, by position in the row, and its different n-grams, int64 [g]."""

    first: int
    last: int
    grams: NDArray[np.int64]


def _clusters(position: NDArray[np.int64], gram: NDArray[np.int64]) -> list[_Cluster]:
    """The clusters of one item's n-grams, which stand at these positions of a row (int64 [m], ascending)."""
    breaks = np.flatnonzero(np.diff(position) > MISSES) + 1
    ranges = pairwise([0, *breaks.tolist(), len(position)]) if len(position) else []
    return [_Cluster(int(position[a]), int(position[b - 1]), np.unique(gram[a:b])) for a, b in ranges]


def _required(words: int, threshold: float) -> float:
    """The score that a text of so many words must reach: 1 for short ones, falling to `threshold`."""
    return float(np.interp(words, [DECAY_START, DECAY_END], [1.0, threshold]))


def _different(texts: TokenLists) -> NDArray[np.int64]:
    """How many different words each text has, int64 [n]."""
    frame = pl.DataFrame({"text": np.repeat(np.arange(len(texts.counts)), texts.counts), "word": texts.hashes})
    return np.bincount(frame.unique()["text"].to_numpy(), minlength=len(texts.counts))
