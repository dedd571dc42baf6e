"""Memorization: the longest run of words that an answer shares with an answer the arm was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.checksums import whole
from siftune.curation.run.folder import RunFolder
from siftune.training.arm_names import arm_sort_key
from siftune.training.evaluation.prompt_answers import read_answers

Hashes = NDArray[np.uint64]
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
_INVERSE = pow(_BASE, -1, 1 << 64)


@dataclass(frozen=True)
class SharedRun:
    """The longest run of words that an answer shares: how many, their share of the answer's words, and the words."""

    words: int
    share: float
    text: str


@dataclass(frozen=True)
class Memorization:
    """How much the answers of an arm repeat its training data: shared runs of words, averaged over its answers."""

    arm: str
    answers: int
    mean_words: float
    longest_words: int
    mean_share: float


def read_memorization(run: RunFolder) -> tuple[Memorization, ...]:
    """The memorization of every arm that answered the prompt suite, in the order of arms; empty without answers."""
    answers = read_answers(run).select("arm", "repeated_words", "repeated_share").drop_nulls()
    averages = answers.group_by("arm").agg(
        pl.len().alias("answers"),
        pl.col("repeated_words").mean().alias("mean_words"),
        pl.col("repeated_words").max().alias("longest_words"),
        pl.col("repeated_share").mean().alias("mean_share"),
    )
    return tuple(Memorization(**row) for row in sorted(averages.to_dicts(), key=lambda row: arm_sort_key(row["arm"])))


def longest_shared_runs(answers: Sequence[str], arm: Path, *, batch_rows: int = 50_000) -> list[SharedRun]:
    """For each answer, the longest run of words that also stands inside one assistant turn of the arm's data.

    Words are runs of letters and digits, in lower case. The data is read in batches and never held whole. A run of
    words is compared by a 64-bit polynomial hash (Karp & Rabin 1987).

    Args:
        answers: texts.
        arm: parquet with ARM columns.
        batch_rows: rows of the arm that are read at a time.
    """
    words = _TextWords.split(pl.Series("text", list(answers), dtype=pl.String))
    lengths = np.zeros(len(answers), dtype=np.int64)
    starts = np.zeros(len(answers), dtype=np.int64)
    for turns in _assistant_turns(arm, batch_rows):
        _extend(words, _TextWords.split(turns), lengths, starts)
    return [
        SharedRun(int(n), float(n / max(1, total)), " ".join(words.words[start : start + n].to_list()))
        for n, start, total in zip(lengths, starts, words.counts(), strict=True)
    ]


def _assistant_turns(arm: Path, batch_rows: int) -> Iterator[pl.Series]:
    rows = pl.scan_parquet(whole(arm), glob=False).select("messages")
    start = 0
    while (batch := rows.slice(start, batch_rows).collect()).height:
        turns = batch.explode("messages", empty_as_null=True, keep_nulls=True).unnest("messages")
        yield turns.filter(pl.col("role") == "assistant")["content"]
        start += batch_rows


@dataclass(frozen=True)
class _TextWords:
    """The words of many texts, one after the other, with prefix sums from which any run is hashed by one subtraction.

    words: all words. text: int64 (words,), the text that each word belongs to. end: int64 (words,), where that text
    ends. starts: int64 (texts + 1,), where each text begins. prefix: uint64 (words + 1,), sums of the words' hashes
    times powers of `_BASE`. shrink: uint64 (words,), the inverse powers, which make hashes independent of position.
    """

    words: pl.Series
    text: NDArray[np.int64]
    end: NDArray[np.int64]
    starts: NDArray[np.int64]
    prefix: Hashes
    shrink: Hashes

    @classmethod
    def split(cls, texts: pl.Series) -> _TextWords:
        """Split texts into words."""
        lists = texts.fill_null("").str.to_lowercase().str.extract_all(r"[\p{L}\p{N}]+")
        counts = lists.list.len().to_numpy().astype(np.int64)
        words = lists.explode(empty_as_null=False, keep_nulls=False)
        starts = np.concatenate([[0], np.cumsum(counts)])
        with np.errstate(over="ignore"):
            weighted = words.hash(seed=0).to_numpy() * _powers(_BASE, len(words))[: len(words)]
            prefix = np.concatenate([np.zeros(1, np.uint64), np.cumsum(weighted, dtype=np.uint64)])
        text = np.repeat(np.arange(len(texts)), counts)
        return cls(words, text, np.repeat(starts[1:], counts), starts, prefix, _powers(_INVERSE, len(words)))

    def counts(self) -> NDArray[np.int64]:
        """The number of words of each text, int64 (texts,)."""
        return np.diff(self.starts)

    def runs(self, n: int) -> tuple[Hashes, NDArray[np.int64]]:
        """The hash and the first word of every run of `n` words that lies inside one text."""
        first = np.flatnonzero(np.arange(len(self.words)) + n <= self.end)
        return (self.prefix[first + n] - self.prefix[first]) * self.shrink[first], first


def _powers(base: int, count: int) -> Hashes:
    """1, base, base², … modulo 2**64."""
    factors = np.full(max(count, 1), base, dtype=np.uint64)
    factors[0] = 1
    return np.cumprod(factors, dtype=np.uint64)


def _extend(answers: _TextWords, data: _TextWords, lengths: NDArray[np.int64], starts: NDArray[np.int64]) -> None:
    """Raise `lengths` and `starts`, the longest shared run of each answer, by what `data` holds.

    The length is found by bisection: where a run of n words is shared, so is one of n − 1.
    """

    @cache
    def first_shared(n: int) -> dict[int, int]:
        """For each answer that shares a run of `n` words, where its first one begins."""
        hashes, first = answers.runs(n)
        data_hashes, _ = data.runs(n)
        # Answers are few and data many: the data is looked up among the answers, so only answers are sorted.
        distinct = np.unique(hashes)
        slots = np.minimum(np.searchsorted(distinct, data_hashes), max(len(distinct) - 1, 0))
        shared = np.unique(data_hashes[distinct[slots] == data_hashes]) if len(distinct) else distinct
        hits = first[np.isin(hashes, shared)][::-1]
        return dict(zip(answers.text[hits].tolist(), hits.tolist(), strict=True))

    for answer, count in enumerate(answers.counts()):
        low, high = int(lengths[answer]), int(count)
        while low < high:
            middle = min(2 * low + 1, high) if low < high // 2 else (low + high + 1) // 2
            if answer in first_shared(middle):
                low = middle
            else:
                high = middle - 1
        if low > lengths[answer]:
            lengths[answer], starts[answer] = low, first_shared(low)[answer]
