"""Repeated text: the longest run of words of an answer that stands in the data the arm was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
_BATCH_ROWS = 50_000
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
_INVERSE = pow(_BASE, -1, 1 << 64)


@dataclass(frozen=True)
class Repeated:
    """The longest common run: how many words, what share of the answer's words, and the words."""

    words: int
    share: float
    text: str


def repeated(answers: Sequence[str], arm: Path) -> list[Repeated]:
    """For each answer its longest run of words inside one assistant turn of `arm` (parquet with ARM columns).

    Words are runs of letters and digits, lower case. The arm is read in batches and never held whole.
    """
    asked = _Words.of(pl.Series("text", list(answers), dtype=pl.String))
    best = np.zeros(len(answers), dtype=np.int64)
    where = np.zeros(len(answers), dtype=np.int64)
    for texts in _assistant_turns(arm):
        _longer(asked, _Words.of(texts), best, where)
    return [
        Repeated(int(n), float(n / max(1, length)), " ".join(asked.words[at : at + n].to_list()))
        for n, at, length in zip(best, where, asked.lengths(), strict=True)
    ]


def _assistant_turns(arm: Path) -> Iterator[pl.Series]:
    rows = pl.scan_parquet(arm).select("messages")
    start = 0
    while (batch := rows.slice(start, _BATCH_ROWS).collect()).height:
        turns = batch.explode("messages", empty_as_null=True, keep_nulls=True).unnest("messages")
        yield turns.filter(pl.col("role") == "assistant")["content"]
        start += _BATCH_ROWS


@dataclass(frozen=True)
class _Words:
    """The words of many texts in one row; `text` and `end` say of each word whose it is and where that text ends."""

    words: pl.Series
    text: NDArray[np.int64]
    end: NDArray[np.int64]
    starts: NDArray[np.int64]
    prefix: Hashes
    shrink: Hashes

    @classmethod
    def of(cls, texts: pl.Series) -> _Words:
        """Split into words and prepare sums from which the hash of any run is one subtraction (Karp & Rabin 1987)."""
        lists = texts.fill_null("").str.to_lowercase().str.extract_all(r"[\p{L}\p{N}]+")
        lengths = lists.list.len().to_numpy().astype(np.int64)
        words = lists.explode(empty_as_null=False, keep_nulls=False)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        with np.errstate(over="ignore"):
            powers = _powers(_BASE, len(words))
            weighted = words.hash(seed=0).to_numpy() * powers[: len(words)]
            prefix = np.concatenate([np.zeros(1, np.uint64), np.cumsum(weighted, dtype=np.uint64)])
        text = np.repeat(np.arange(len(texts)), lengths)
        return cls(words, text, np.repeat(starts[1:], lengths), starts, prefix, _powers(_INVERSE, len(words)))

    def lengths(self) -> NDArray[np.int64]:
        """Words of each text."""
        return np.diff(self.starts)

    def runs(self, n: int) -> tuple[Hashes, NDArray[np.int64]]:
        """Hash and start of every run of `n` words that lies inside one text."""
        at = np.flatnonzero(np.arange(len(self.words)) + n <= self.end)
        return (self.prefix[at + n] - self.prefix[at]) * self.shrink[at], at


def _powers(base: int, count: int) -> Hashes:
    """1, base, base², … modulo 2**64."""
    factors = np.full(max(count, 1), base, dtype=np.uint64)
    factors[0] = 1
    return np.cumprod(factors, dtype=np.uint64)


def _longer(asked: _Words, data: _Words, best: NDArray[np.int64], where: NDArray[np.int64]) -> None:
    """Raise `best` and `where` of each answer by what `data` holds: a run of n words holds runs of n − 1."""

    @cache
    def first_hits(n: int) -> dict[int, int]:
        """Where each answer that shares a run of `n` words has its first one."""
        wanted, at = asked.runs(n)
        there, _ = data.runs(n)
        # Answers are few and data many: the data is looked up among the answers, so only answers are sorted.
        known = np.unique(wanted)
        place = np.minimum(np.searchsorted(known, there), max(len(known) - 1, 0))
        common = np.unique(there[known[place] == there]) if len(known) else known
        hits = at[np.isin(wanted, common)][::-1]
        return dict(zip(asked.text[hits].tolist(), hits.tolist(), strict=True))

    for answer, length in enumerate(asked.lengths()):
        low, high = int(best[answer]), int(length)
        while low < high:
            middle = min(2 * low + 1, high) if low < high // 2 else (low + high + 1) // 2
            if answer in first_hits(middle):
                low = middle
            else:
                high = middle - 1
        if low > best[answer]:
            best[answer], where[answer] = low, first_hits(low)[answer]
