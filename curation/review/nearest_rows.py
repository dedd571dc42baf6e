"""Where an answer may come from: the rows of a run nearest to it in meaning and in words, and what became of them."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import polars as pl

from siftune.curation.corpus import Corpus
from siftune.curation.embeddings.store import EmbeddingStore, StoredVectors, embedder
from siftune.curation.errors import UserError
from siftune.curation.review.catalogue import Catalogue
from siftune.curation.review.search import TextIndex
from siftune.curation.text.words import key_text

_WORDS = re.compile(r"\w+")
_RUN = 3
#: Runs of words looked up in the index, spread over the answer.
_MOST_RUNS = 40
_CANDIDATES = 40


@dataclass(frozen=True)
class NearestRow:
    """A row that resembles an answer.

    Attributes:
        position: of the row, in ROWS.
        share: how many of the answer's three-word runs stand in the row, as a share of all of them.
        cosine: of the answer's embedding with the row's; None where the run has no embeddings.
        prompt: of the row.
        text: the answer of the row.
    """

    position: int
    share: float
    cosine: float | None
    prompt: str
    text: str


@dataclass(frozen=True)
class RowEmbeddings:
    """The embeddings that the run's semantic stage left in the store, in the order of EXAMPLES."""

    store: EmbeddingStore
    stored: StoredVectors

    @classmethod
    def open(cls, catalogue: Catalogue) -> RowEmbeddings | None:
        """Look the run's rows up in the store: hashes of their texts, no encoding. None where there is no encoder on
        this machine, or no row has a vector.
        """
        run = catalogue.run
        if run.recipe.encoder is None or run.recipe.duplicates.semantic is None:
            return None
        corpus = Corpus(run.examples, run.texts, key="")
        rows = np.arange(pl.scan_parquet(run.texts, glob=False).select(pl.len()).collect().item(), dtype=np.uint32)
        try:
            store = embedder(run.recipe.encoder)
            stored = store.stored(corpus.key_texts(run.recipe.keys.duplicates, rows))
        except UserError:
            return None
        return cls(store, stored) if stored.known.any() else None


def nearest_rows(
    catalogue: Catalogue, index: TextIndex, answer: str, *, embeddings: RowEmbeddings | None = None, most: int = 5
) -> list[NearestRow]:
    """The rows nearest to an answer, the nearest first.

    With `embeddings`: by the cosine of embeddings, exactly, over every row that has one (rows that an earlier stage
    dropped as copies have none) and those that share most words with it, which are encoded for this. Without: by the
    share of the answer's three-word runs that stand in a row. Rows that share no run are left out then.

    Args:
        catalogue: the rows of the run.
        index: their search index.
        answer: the text.
        embeddings: those of the run, if there are any.
        most: how many rows are returned.
    """
    runs = _runs(answer)
    by_words = _nearest_by_words(catalogue, index, runs)[:most]
    if embeddings is None or not answer.strip():
        return by_words
    query = embeddings.store.encoder.encode([answer])[0]
    cosines = embeddings.stored.cosines(query)
    # The candidates: the rows with the best cosines, and those that share most words.
    best = np.argsort(-np.nan_to_num(cosines, nan=-2.0), kind="stable")[:most]
    row_of = _rows_of_examples(catalogue)
    texts = catalogue.texts(row_of[best[~np.isnan(cosines[best])]])
    texts |= catalogue.texts([row.position for row in by_words])
    # The cosine of each, encoded now where the store has not seen the row.
    cosine_of = {position: float(cosines[catalogue.example_positions[position]]) for position in texts}
    unseen = {position: row for position, row in texts.items() if np.isnan(cosine_of[position])}
    cosine_of |= _encoded(catalogue, embeddings, query, unseen)
    rows = [
        NearestRow(position, _share(runs, row), cosine_of[position], row["prompt"] or "", row["answer"] or "")
        for position, row in texts.items()
    ]
    rows.sort(key=lambda row: (-(row.cosine or 0.0), -row.share, row.position))
    return rows[:most]


def _encoded(
    catalogue: Catalogue, embeddings: RowEmbeddings, query: np.ndarray, rows: dict[int, dict[str, str]]
) -> dict[int, float]:
    """The cosine of rows that the store has not seen."""
    if not rows:
        return {}
    frame = pl.DataFrame([{name: row[name] for name in ("core", "answer")} for row in rows.values()])
    key = key_text(catalogue.run.recipe.keys.duplicates)
    vectors = embeddings.store.encoder.encode(frame.select(key.alias("text"))["text"].fill_null("").to_list())
    return dict(zip(rows, (vectors @ query).tolist(), strict=True))


def _rows_of_examples(catalogue: Catalogue) -> np.ndarray:
    """For each of EXAMPLES the position of its row in ROWS: uint32 [n]."""
    examples = catalogue.example_positions
    rows = np.flatnonzero(examples >= 0)
    row_of = np.zeros(int(examples.max(initial=-1)) + 1, dtype=np.uint32)
    row_of[examples[rows]] = rows
    return row_of


def _nearest_by_words(catalogue: Catalogue, index: TextIndex, runs: set[str]) -> list[NearestRow]:
    """Rows that share runs of words with an answer, most first.

    Candidates are found through the search index, rare runs counting more; their shares are then counted exactly.
    """
    if not runs:
        return []
    weight = np.zeros(len(catalogue), dtype=np.float32)
    ordered = sorted(runs)
    for run in ordered[:: max(1, len(ordered) // _MOST_RUNS)][:_MOST_RUNS]:
        hits = index.search(f'"{run}"')
        if len(hits):
            weight[hits] += np.log1p(len(catalogue) / len(hits))
    best = np.argsort(-weight, kind="stable")[:_CANDIDATES]
    texts = catalogue.texts(best[weight[best] > 0].astype(np.uint32))
    rows = [
        NearestRow(position, _share(runs, row), None, row["prompt"] or "", row["answer"] or "")
        for position, row in texts.items()
    ]
    rows.sort(key=lambda row: (-row.share, row.position))
    return [row for row in rows if row.share > 0]


def _share(runs: set[str], row: dict[str, str]) -> float:
    return len(runs & _runs(f"{row['prompt']}\n{row['answer']}")) / len(runs) if runs else 0.0


def _runs(text: str) -> set[str]:
    words = _WORDS.findall(text.lower())
    return {" ".join(words[start : start + _RUN]) for start in range(max(0, len(words) - _RUN + 1))}
