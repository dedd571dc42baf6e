"""Semantic duplicates, side by side: prompts and answers each by the cosine of what distinguishes them.

The cosine of two whole rows proposes a pair and says no more: an encoder reads the first 256 word pieces or so, and a
shared passage outweighs the question about it. So each side of a proposed pair is read again. Sentences that both texts
have are left out, and what remains is cut into windows that the encoder reads to the end. The score of a side is the
least, over all windows of either text, of the cosine with the best match among the windows of the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.dedup.leaders import Pairs
from siftune.curation.embeddings.cosine import unit
from siftune.curation.progress import Progress
from siftune.curation.text.own_sentences import own_sentences


class Reader(Protocol):
    """What reads texts: an `EmbeddingStore`."""

    def windows(self, texts: Sequence[str]) -> list[list[str]]:
        """Each text in pieces that the encoder reads to the end."""

    def embed(self, texts: Sequence[str], *, progress: Progress | None = None) -> NDArray[np.float16]:
        """Vectors [n, d] of texts."""


def with_sides(
    pairs: Pairs, rows: Iterable[pl.DataFrame], reader: Reader, *, floor: float, progress: Progress | None = None
) -> Pairs:
    """The proposed pairs all of whose sides have a score of `floor` or more, with these scores.

    Args:
        pairs: proposed pairs, positions in `rows`.
        rows: batches of the compared rows: `core` (the prompt) and, where it is compared, `answer`.
        reader: cuts and encodes texts.
        floor: the least score of each side.
        progress: called while texts are encoded.
    """
    if not len(pairs):
        return pairs
    involved = np.unique(np.concatenate([pairs.a, pairs.b]))
    texts = _taken(rows, involved)
    a, b = np.searchsorted(involved, pairs.a), np.searchsorted(involved, pairs.b)
    kept = np.arange(len(pairs))
    sides = np.ones((len(pairs), len(texts.columns)))
    for number, column in enumerate(texts.columns):
        listed = texts[column].fill_null("").to_list()
        compared = [(listed[one], listed[other]) for one, other in zip(a[kept], b[kept], strict=True)]
        sides[kept, number] = side_scores(compared, reader, progress=progress)
        kept = kept[sides[kept, number] >= floor]
    both = sides[kept] if len(texts.columns) == 2 else None
    return Pairs(pairs.a[kept], pairs.b[kept], sides[kept].min(axis=1), both)


def _taken(rows: Iterable[pl.DataFrame], positions: NDArray[np.integer]) -> pl.DataFrame:
    """The rows at these ascending positions, counted through all batches."""
    start, taken = 0, []
    for batch in rows:
        low, high = np.searchsorted(positions, (start, start + batch.height))
        taken.append(batch[positions[low:high].astype(np.int64) - start])
        start += batch.height
    return pl.concat(taken)


def side_scores(
    compared: Sequence[tuple[str, str]], reader: Reader, *, progress: Progress | None = None
) -> NDArray[np.float64]:
    """The score of each pair of texts (see the module), float64 [m]; 1 for equal texts, 0 where only one is empty.

    Where one text has all sentences of the other, the whole texts are compared: what one of them has besides then
    counts by windows only.
    """
    scores = np.array([float(one == other) for one, other in compared])
    rest = [pair for pair, (one, other) in enumerate(compared) if one != other and one.strip() and other.strip()]
    distinguishing = [_distinguishing(*compared[pair]) for pair in rest]
    distinct = list(dict.fromkeys(text for both in distinguishing for text in both))
    pieces = reader.windows(distinct)
    flat = [piece for window in pieces for piece in window]
    vectors = unit(reader.embed(flat, progress=progress)) if flat else np.empty((0, 1), np.float32)
    ends = np.cumsum([len(window) for window in pieces])
    read = dict(zip(distinct, np.split(vectors, ends[:-1]), strict=True)) if distinct else {}
    for pair, (one, other) in zip(rest, distinguishing, strict=True):
        scores[pair] = least_best_match(read[one], read[other])
    return scores


def _distinguishing(one: str, other: str) -> tuple[str, str]:
    own = own_sentences(one, other)
    return own if all(own) else (one, other)


def least_best_match(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """The least, over the rows of both matrices of unit vectors, of the greatest cosine with a row of the other one.

    Args:
        one: [n, d].
        other: [m, d].
    """
    # By rows in float64, so that neither blocks nor threads can change a sum.
    cosine = np.einsum("id,jd->ij", one.astype(np.float64), other.astype(np.float64))
    return float(np.clip(min(cosine.max(axis=1).min(), cosine.max(axis=0).min()), 0.0, 1.0))
