"""One exact search for similar rows across splits: to evict what leaks, and then to certify that nothing does.

Nothing here is estimated or indexed approximately: every pair of rows is compared, by the equality of normalised
texts, by the Jaccard similarity of word shingles, and by the cosine of embeddings.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from siftune.curation.dedup.minhash import shingle_sets
from siftune.curation.embeddings.cosine import cosines, unit
from siftune.curation.schema import DECISIONS, conform, empty
from siftune.curation.text import words as text

_CELLS = 16_000_000  # of a block of similarities
_MARGIN = 1e-4  # more than a float32 dot product of unit vectors can be off


@dataclass(frozen=True)
class Limits:
    """The leak thresholds: Jaccard similarity of shingles of so many words, and cosine."""

    near: float
    semantic: float
    shingle: int


@dataclass(frozen=True)
class Side:
    """The rows of one split: ids, the compared texts in batches (a fresh pass each call), and their embeddings."""

    ids: pl.Series
    texts: Callable[[], Iterable[pl.Series]]
    vectors: np.ndarray | None = None

    def without(self, positions: np.ndarray) -> Side:
        """This side without the rows at these positions."""
        keep = np.ones(len(self.ids), dtype=bool)
        keep[positions] = False
        vectors = None if self.vectors is None else self.vectors[keep]
        return Side(self.ids.filter(keep), lambda: _filtered(self.texts(), keep), vectors)


@dataclass(frozen=True)
class Found:
    """What a search found: pairs at or above the threshold (sorted by `a`, `b`) and the best pair of all."""

    measure: str
    threshold: float
    comparisons: int
    a: np.ndarray
    b: np.ndarray
    score: np.ndarray
    highest: float | None
    highest_pair: tuple[int, int] | None


@dataclass(frozen=True)
class Check:
    """One measure over one pair of splits: how many pairs reach the threshold, and the pair that comes closest."""

    left: str
    right: str
    measure: str
    threshold: float
    comparisons: int
    pairs: int
    highest: float | None
    highest_pair: tuple[str, str] | None


@dataclass(frozen=True)
class Certificate:
    """The outcome of a fresh search over the splits as they were written."""

    rows: Mapping[str, int]
    limits: Limits
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether no pair across splits reaches a leak threshold."""
        return all(check.pairs == 0 for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """For the manifest: JSON types only."""
        checks = [
            vars(check) | {"highest_pair": check.highest_pair and list(check.highest_pair)} for check in self.checks
        ]
        measures = {check.measure for check in self.checks}
        return {
            "passed": self.passed,
            "method": "every pair of rows across splits compared: equal normalised text; Jaccard similarity of "
            f"{self.limits.shingle}-word shingles through an inverted index"
            + ("; cosine of embeddings by blocks" if "semantic" in measures else "; no embeddings, so no cosine"),
            "thresholds": {"exact": 1.0, "near": self.limits.near}
            | ({"semantic": self.limits.semantic} if "semantic" in measures else {}),
            "rows": dict(self.rows),
            "comparisons": sum(check.comparisons for check in self.checks),
            "pairs": sum(check.pairs for check in self.checks),
            "checks": checks,
        }


def certify(sides: Mapping[str, Side], *, limits: Limits) -> Certificate:
    """Search every two of the splits for similar rows."""
    checks = [
        _check(one, two, sides[one].ids, sides[two].ids, found)
        for one, two in itertools.combinations(sides, 2)
        for found in search(sides[one], sides[two], limits=limits)
    ]
    return Certificate({name: len(side.ids) for name, side in sides.items()}, limits, tuple(checks))


def evict(sides: Mapping[str, Side], *, limits: Limits) -> pl.DataFrame:
    """DECISIONS that leave no similar pair across splits: the search of `certify`, acted upon.

    `sides` stand in order of precedence (test, validation, train): a row goes when it resembles a row that stays in
    an earlier split. Its witness is the most similar of these; reason `leak`, the measure in `detail`.
    """
    decisions = [empty(DECISIONS)]
    stay: dict[str, Side] = {}
    for name, side in sides.items():
        rows = [
            frame
            for other, winner in stay.items()
            for found in search(side, winner, limits=limits)
            if not (frame := _leaks(found, winner.ids, name=name, other=other)).is_empty()
        ]
        stay[name] = side
        if rows:
            best = (
                pl.concat(rows).sort("a", -pl.col("score"), "order", "b").unique("a", keep="first", maintain_order=True)
            )
            best = best.with_columns(id=side.ids.gather(best["a"]), action=pl.lit("drop"), reason=pl.lit("leak"))
            decisions.append(conform(best, DECISIONS))
            stay[name] = side.without(best["a"].to_numpy())
    return pl.concat(decisions)


def search(left: Side, right: Side, *, limits: Limits) -> list[Found]:
    """Compare every row of `left` with every row of `right`, by each measure; keep the smaller side right."""
    right_texts = _joined(right.texts())
    found = [
        cross_exact(left.texts(), right_texts),
        cross_pairs(left.texts(), right_texts, shingle=limits.shingle, threshold=limits.near),
    ]
    if left.vectors is not None and right.vectors is not None:
        found.append(cross_cosine(left.vectors, right.vectors, threshold=limits.semantic))
    return found


def cross_exact(left: pl.Series | Iterable[pl.Series], right: pl.Series) -> Found:
    """Rows whose normalised texts are equal; an empty text resembles nothing."""
    keys = _keys(right).with_row_index("b")
    pairs, rows = [], 0
    for batch in _batches(left):
        here = _keys(batch).with_row_index("a", offset=rows)
        pairs.append(here.filter(pl.col("key") != "").join(keys, on="key", how="inner").select("a", "b"))
        rows += len(batch)
    table = pl.concat(pairs).sort("a", "b") if pairs else pl.DataFrame(schema={"a": pl.UInt32, "b": pl.UInt32})
    best = (int(table["a"][0]), int(table["b"][0])) if table.height else None
    score = np.ones(table.height)
    a, b = table["a"].to_numpy(), table["b"].to_numpy()
    return Found("exact", 1.0, rows * len(right), a, b, score, 1.0 if best else None, best)


def cross_pairs(left: pl.Series | Iterable[pl.Series], right: pl.Series, *, shingle: int, threshold: float) -> Found:
    """Exact Jaccard similarity of the shingle sets of every pair of texts.

    An inverted index over the shingles of `right` counts what each pair shares (a sparse product); pairs that share
    nothing have similarity 0 and need no look. Memory grows with `right` and with one batch of `left`.
    """
    from scipy.sparse import csr_array

    values, offsets = shingle_sets(right, shingle=shingle)
    vocabulary, term = np.unique(values, return_inverse=True)
    index = csr_array((np.ones(len(term), np.int32), term, offsets), shape=(len(right), len(vocabulary))).T.tocsr()
    right_sizes = np.diff(offsets)
    block = max(1, _CELLS // max(1, len(right)))
    collected, rows = _Collected(threshold), 0
    for batch in _batches(left):
        values, offsets = shingle_sets(batch, shingle=shingle)
        there, term = _look_up(vocabulary, values)
        inside = np.concatenate([[0], np.cumsum(there)])[offsets]
        known = csr_array((np.ones(len(term), np.int32), term, inside), shape=(len(batch), len(vocabulary)))
        for start in range(0, len(batch), block):
            shared = (known[start : start + block] @ index).tocoo()
            a, b = shared.coords[0].astype(np.int64) + start, shared.coords[1].astype(np.int64)
            union = np.diff(offsets)[a] + right_sizes[b] - shared.data
            collected.add(rows + a, b, shared.data / union)
        rows += len(batch)
    return collected.found("near", comparisons=rows * len(right))


def cross_cosine(left: np.ndarray, right: np.ndarray, *, threshold: float) -> Found:
    """The cosine of every row of `left` [n, d] with every row of `right` [m, d], by blocks.

    float32 products only nominate; what is reported is computed again in float64, row by row, so that it does not
    depend on blocks or threads. A zero vector resembles nothing.
    """
    other = unit(right)
    block = max(1, _CELLS // max(1, len(right)))
    collected, ceiling = _Collected(threshold), -1.0
    for start in range(0, len(left) if len(right) else 0, block):
        similarity = unit(left[start : start + block]) @ other.T
        ceiling = max(ceiling, float(similarity.max()))
        a, b = np.nonzero(similarity >= min(threshold, ceiling) - _MARGIN)
        collected.add(start + a, b, cosines(left, right, start + a, b))
    return collected.found("semantic", comparisons=len(left) * len(right))


class _Collected:
    """Pairs at or above a threshold as they are found, and the best pair seen, whatever the threshold."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.best: tuple[float, int, int] | None = None

    def add(self, a: np.ndarray, b: np.ndarray, score: np.ndarray) -> None:
        if not len(score):
            return
        top = np.flatnonzero(score == score.max())
        first = top[np.lexsort((b[top], a[top]))[0]]
        challenger = (float(score[first]), -int(a[first]), -int(b[first]))
        self.best = challenger if self.best is None else max(self.best, challenger)
        keep = score >= self.threshold
        self.parts.append((a[keep].astype(np.uint32), b[keep].astype(np.uint32), score[keep]))

    def found(self, measure: str, *, comparisons: int) -> Found:
        a = np.concatenate([np.empty(0, np.uint32), *[part[0] for part in self.parts]])
        b = np.concatenate([np.empty(0, np.uint32), *[part[1] for part in self.parts]])
        score = np.concatenate([np.empty(0), *[part[2] for part in self.parts]])
        order = np.lexsort((b, a))
        highest, pair = (self.best[0], (-self.best[1], -self.best[2])) if self.best else (None, None)
        return Found(measure, self.threshold, comparisons, a[order], b[order], score[order], highest, pair)


def _check(one: str, two: str, left: pl.Series, right: pl.Series, found: Found) -> Check:
    pair = (left[found.highest_pair[0]], right[found.highest_pair[1]]) if found.highest_pair else None
    return Check(one, two, found.measure, found.threshold, found.comparisons, len(found.a), found.highest, pair)


def _leaks(found: Found, winners: pl.Series, *, name: str, other: str) -> pl.DataFrame:
    order = ("exact", "near", "semantic").index(found.measure)
    return pl.DataFrame({"a": found.a, "b": found.b, "score": found.score}).with_columns(
        order=pl.lit(order),
        threshold=pl.lit(found.threshold),
        witness=winners.gather(found.b),
        detail=pl.lit(f"{found.measure}, {name} row resembles {other}"),
    )


def _look_up(vocabulary: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of the values are in the sorted vocabulary (bool), and the places of those that are."""
    if not len(vocabulary):
        return np.zeros(len(values), dtype=bool), np.empty(0, np.int64)
    place = np.minimum(np.searchsorted(vocabulary, values), len(vocabulary) - 1)
    there = vocabulary[place] == values
    return there, place[there]


def _keys(texts: pl.Series) -> pl.DataFrame:
    return pl.DataFrame({"key": texts}).select(text.normalise(pl.col("key")))


def _batches(texts: pl.Series | Iterable[pl.Series]) -> Iterable[pl.Series]:
    return [texts] if isinstance(texts, pl.Series) else texts


def _joined(batches: Iterable[pl.Series]) -> pl.Series:
    return pl.concat([pl.Series("text", [], dtype=pl.String), *[batch.alias("text") for batch in batches]])


def _filtered(batches: Iterable[pl.Series], keep: np.ndarray) -> Iterator[pl.Series]:
    start = 0
    for batch in batches:
        yield batch.filter(keep[start : start + len(batch)])
        start += len(batch)
