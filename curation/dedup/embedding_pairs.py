"""Semantic duplicates: pairs of rows by the cosine of their embeddings.

Up to a stated number of rows the search is exact. It is made cheap by a bound, not by an approximation: with the
vectors rotated onto their principal axes, the leading axes and what is left of each vector's length bound the cosine
from above (Cauchy-Schwarz), and one small matrix product gives that bound for a block of pairs. Whatever the bound
cannot rule out is computed one by one in float64, so neither the size of a block nor the number of threads can move a
pair across the floor. Beyond that number of rows a faiss IVF index proposes the pairs, and its recall is measured
against the exact search.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.dedup.leaders import Pairs
from siftune.curation.dedup.preselect import overlaps
from siftune.curation.embeddings.cosine import cosines, unit
from siftune.curation.embeddings.knn import Embed
from siftune.curation.errors import UserError, missing_extra
from siftune.curation.progress import Progress

Candidates = tuple[NDArray[np.int64], NDArray[np.int64]]

#: Tuning: rows on each side of a block, 16 MiB of bounds or half of a large cache. No result depends on it.
BLOCK_ROWS = 2048
#: More pairs than this are refused: they would fill the memory, and mean that the floor is far too low.
MAX_PAIRS = 100_000_000
_LEADING_AXES = 95  # with one more column for the rest of the length: a quarter of MiniLM's 384
_TOLERANCE = 1e-4  # far above the rounding of float32 sums of unit vectors, far below any difference that matters
_MAX_LOOSE_SHARE = 0.02  # a block where the bound leaves more than this share of pairs is computed in full
_CHUNK_PAIRS = 1_000_000
_RECALL = 0.99
_SAMPLED_ROWS = 1000
_SEED = 7
_MIN_PRESELECT_ROWS = 2000  # fewer rows are encoded in seconds
_BANDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
_PRIOR_PAIRS = 3  # pairs added to what a band was seen to hold: even a band without any may be followed by some


@dataclass(frozen=True)
class EmbeddingPairs(Pairs):
    """Pairs by cosine, and how they were found.

    Attributes:
        method: the search in words.
        recall: 1 for the exact search. For the index the share of the pairs of `sampled` rows that it proposed, NaN
            where these rows have none; for a preselection a cautious estimate from the `sampled` rows encoded last.
        sampled: how many rows the recall was measured on.
    """

    method: str = "exact"
    recall: float = 1.0
    sampled: int = 0


def cosine_pairs(
    vectors: np.ndarray,
    *,
    floor: float,
    exact_rows: int = 200_000,
    new: int | None = None,
    progress: Progress | None = None,
) -> EmbeddingPairs:
    """All pairs of rows of `vectors` with cosine >= `floor`; a zero vector resembles nothing.

    Scores are computed pair by pair in float64. With more than `exact_rows` rows, pairs are proposed by an index whose
    measured recall is in the result; its search is widened until that reaches 0.99.

    Args:
        vectors: embeddings of any length, float [n, d], as a rule float16 from the store.
        floor: the least cosine that is returned, in (0, 1].
        exact_rows: up to this many rows every pair is considered.
        new: only pairs with one of the first `new` rows are searched for, all of them; default: all pairs.
        progress: called with ("comparing", rows done, rows).

    Raises:
        UserError: there are more than 100 million pairs, or faiss is needed and missing.
    """
    if len(vectors) <= exact_rows or new is not None:
        return _verified(vectors, _exact(unit(vectors), floor, new=new, progress=progress), floor)
    return _indexed(vectors, floor, progress)


def preselected_pairs(
    texts: pl.Series, embed: Embed, *, floor: float, exact_rows: int = 200_000, progress: Progress | None = None
) -> EmbeddingPairs:
    """As `cosine_pairs`, but texts that share few rare words with any other are not encoded.

    Texts are encoded in bands, those that share most first; a pair is found in the band of the member that shares less.
    Taking it that a row further down has no more pairs than one further up, what the last band held bounds what the
    rest may hold. Once that is at most 1 % of the pairs found, the rest is not encoded. Where words say little about
    meaning (paraphrases on purpose), or pairs are too few for an estimate, every text is encoded.

    Args:
        texts: the n texts.
        embed: encodes texts, float [k, d].
        floor: the least cosine that is returned, in (0, 1].
        exact_rows: with more texts than this every text is encoded, and an index proposes the pairs.
        progress: called by `embed`, and with ("comparing", rows done, rows).

    Raises:
        UserError: as in `cosine_pairs`.
    """
    if not _MIN_PRESELECT_ROWS <= len(texts) <= exact_rows:
        return cosine_pairs(embed([texts], progress=progress), floor=floor, exact_rows=exact_rows, progress=progress)
    order = np.argsort(-overlaps(texts), kind="stable")
    vectors: list[np.ndarray] = []
    unit_vectors: list[NDArray[np.float32]] = []
    parts: list[EmbeddingPairs] = []
    done, count, lost = 0, 0, 0.0
    for share in _BANDS:
        edge = int(share * len(texts))
        vectors.append(embed([texts.gather(order[done:edge])], progress=progress))
        unit_vectors.append(unit(vectors[-1]))
        candidates = _exact(np.concatenate(unit_vectors), floor, since=done)
        parts.append(_verified(np.concatenate(vectors), candidates, floor))
        count += len(parts[-1])
        lost = (len(parts[-1]) + _PRIOR_PAIRS) * (len(texts) - edge) / (edge - done)
        done = edge
        if lost <= (1 - _RECALL) * count:
            break
    first, second = (order[np.concatenate([getattr(part, side) for part in parts])] for side in ("a", "b"))
    a, b = np.minimum(first, second), np.maximum(first, second)
    rank = np.lexsort((b, a))
    score = np.concatenate([part.score for part in parts])[rank]
    pairs = EmbeddingPairs(a[rank].astype(np.uint32), b[rank].astype(np.uint32), score)
    if done == len(texts):
        return pairs
    method = f"exact, among {done} of {len(texts)} rows"
    return replace(pairs, method=method, recall=count / (count + lost), sampled=len(vectors[-1]))


def has_neighbour(
    texts: pl.Series, embed: Embed, *, floor: float, new: int | None = None, progress: Progress | None = None
) -> NDArray[np.bool_]:
    """Which of `texts` are equal to another one or have a cosine >= `floor` with another one: bool[n].

    Args:
        texts: the n texts; null counts as empty.
        embed: encodes texts, float [k, d].
        floor: the least cosine, in (0, 1].
        new: only cosines with one of the first `new` texts count; default: all.
        progress: called by `embed`.
    """
    distinct = texts.fill_null("").to_frame("text").with_row_index("row")
    distinct = distinct.group_by("text", maintain_order=True).agg("row")
    vectors = embed([distinct["text"]], progress=progress)
    has = (distinct["row"].list.len() > 1).to_numpy().copy()
    distinct_new = None if new is None else int((distinct["row"].list.first() < new).sum())
    for a, b in _exact(unit(vectors), floor, new=distinct_new):
        unknown = ~(has[a] & has[b])  # most pairs of a crowded block are of rows that are known to have a neighbour
        a, b = a[unknown], b[unknown]
        reached = cosines(vectors, vectors, a, b) >= floor
        has[a[reached]] = has[b[reached]] = True
    result = np.zeros(len(texts), np.bool_)
    result[distinct.filter(pl.Series(has))["row"].explode().drop_nulls().to_numpy()] = True
    return result


def _verified(vectors: np.ndarray, candidates: Iterator[Candidates], floor: float) -> EmbeddingPairs:
    """Candidates that reach the floor, sorted, with their cosine."""
    parts: list[tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.float64]]] = []
    count = 0
    for a, b in candidates:
        score = np.minimum(cosines(vectors, vectors, a, b), 1.0)
        reached = score >= floor
        parts.append((a[reached].astype(np.uint32), b[reached].astype(np.uint32), score[reached]))
        count += int(reached.sum())
        if count > MAX_PAIRS:
            raise UserError(
                f"More than {MAX_PAIRS:,} pairs of rows have a cosine of {floor} or more. Raise the floor, or let "
                "the exact and near stages drop repeated rows first."
            )
    parts.append((np.empty(0, np.uint32), np.empty(0, np.uint32), np.empty(0)))
    first = np.concatenate([part[0] for part in parts])
    second = np.concatenate([part[1] for part in parts])
    scores = np.concatenate([part[2] for part in parts])
    order = np.lexsort((second, first))
    return EmbeddingPairs(first[order], second[order], scores[order])


def _exact(
    full: NDArray[np.float32],
    floor: float,
    *,
    since: int = 0,
    new: int | None = None,
    progress: Progress | None = None,
) -> Iterator[Candidates]:
    """Every pair a < b whose bound reaches the floor, block by block; only those with b >= `since` and a < `new`."""
    limit = np.float32(floor - _TOLERANCE)
    bounding = _bounding(full)
    end = len(full) if new is None else new
    for top in range(0, end, BLOCK_ROWS):
        for left in range(max(top, since), len(full), BLOCK_ROWS):
            rows, columns = slice(top, min(top + BLOCK_ROWS, end)), slice(left, left + BLOCK_ROWS)
            hit = bounding[rows] @ bounding[columns].T >= limit
            if np.count_nonzero(hit) > _MAX_LOOSE_SHARE * hit.size and bounding is not full:
                hit = full[rows] @ full[columns].T >= limit
            a, b = np.nonzero(hit)
            a, b = a + top, b + left
            if left < top + BLOCK_ROWS:
                a, b = a[a < b], b[a < b]
            close = np.einsum("ij,ij->i", full[a], full[b]) >= limit  # the bound lets through several times as many
            yield a[close], b[close]
        if progress is not None:
            progress("comparing", min(top + BLOCK_ROWS, end), end)


def _bounding(full: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors [n, 96] whose dot products are upper bounds of those of the unit vectors `full` [n, d]."""
    if full.shape[1] <= 2 * _LEADING_AXES or not len(full):
        return full
    sample = full[:: max(1, len(full) // 20_000)].astype(np.float64)
    _, axes = np.linalg.eigh(sample.T @ sample)
    leading = full @ axes[:, -_LEADING_AXES:].astype(np.float32)
    residual = np.sqrt(np.maximum(np.square(full).sum(axis=1) - np.square(leading).sum(axis=1), 0.0))
    return np.concatenate([leading, residual[:, None]], axis=1)


def _indexed(vectors: np.ndarray, floor: float, progress: Progress | None) -> EmbeddingPairs:
    """Pairs proposed by an inverted-file index (faiss IndexIVFFlat), its width doubled until the recall is reached."""
    try:
        import faiss
    except ImportError:
        raise missing_extra("faiss-cpu", "semantic") from None
    full = unit(vectors)
    cells = max(1, min(int(4 * len(full) ** 0.5), len(full) // 40))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(full.shape[1]), full.shape[1], cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed, index.cp.max_points_per_centroid = _SEED, 64
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # sums of k-means would depend on the number of threads
    try:
        index.train(full)
    finally:
        faiss.omp_set_num_threads(threads)
    index.add(full)
    sample = np.sort(np.random.default_rng(_SEED).choice(len(full), min(_SAMPLED_ROWS, len(full)), replace=False))
    truth = _pairs_of(vectors, full, sample, floor)
    recall = _widen(index, full, sample, truth, floor)
    pairs = _verified(vectors, _proposed(index, full, floor, progress), floor)
    method = f"faiss IVF{cells}, nprobe {index.nprobe}"
    return replace(pairs, method=method, recall=recall, sampled=len(sample))


def _widen(
    index: object, full: NDArray[np.float32], sample: np.ndarray, truth: NDArray[np.int64], floor: float
) -> float:
    """Double the number of cells that are searched until the recall is reached, or every cell is searched."""
    width = 4
    while True:
        index.nprobe = min(width, index.nlist)  # type: ignore[attr-defined]
        a, b = _range(index, full[sample], floor, sample)
        recall = float(np.isin(truth, a * len(full) + b).mean()) if truth.size else float("nan")
        if not truth.size or recall >= _RECALL or width >= index.nlist:  # type: ignore[attr-defined]
            return recall
        width *= 2


def _pairs_of(vectors: np.ndarray, full: NDArray[np.float32], sample: np.ndarray, floor: float) -> NDArray[np.int64]:
    """Codes a * n + b of every pair of a sampled row `a` that reaches the floor, by the exact search."""
    codes = [np.empty(0, np.int64)]
    for start in range(0, len(full), BLOCK_ROWS):
        row, column = np.nonzero(full[sample] @ full[start : start + BLOCK_ROWS].T >= np.float32(floor - _TOLERANCE))
        a, b = sample[row], column + start
        reached = (a != b) & (cosines(vectors, vectors, a, b) >= floor)
        codes.append(a[reached] * len(full) + b[reached])
    return np.concatenate(codes)


def _range(index: object, queries: NDArray[np.float32], floor: float, rows: np.ndarray) -> Candidates:
    """Each of `rows` with the partners that the index proposes for it."""
    starts, _, partners = index.range_search(np.ascontiguousarray(queries), floor - _TOLERANCE)  # type: ignore[attr-defined]
    return np.repeat(rows, np.diff(starts.astype(np.int64))), partners


def _proposed(
    index: object, full: NDArray[np.float32], floor: float, progress: Progress | None
) -> Iterator[Candidates]:
    """Each proposed pair once: either of its rows may be the one that proposes it."""
    codes: list[np.ndarray] = []
    for start in range(0, len(full), BLOCK_ROWS):
        rows = np.arange(start, min(start + BLOCK_ROWS, len(full)))
        a, b = _range(index, full[rows], floor, rows)
        codes.append(np.unique(np.minimum(a, b) * len(full) + np.maximum(a, b)))
        if progress is not None:
            progress("comparing", int(rows[-1]) + 1, len(full))
    distinct = np.unique(np.concatenate(codes))
    for part in np.array_split(distinct, -(-distinct.size // _CHUNK_PAIRS) or 1):
        a, b = np.divmod(part, len(full))
        yield a[a != b], b[a != b]
