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
class Source:
    """A row at `position`. `share` of the answer's three-word runs stand in it; `cosine` is that of the answer's
    embedding with the row's, None where the run has no embeddings. `prompt` and `text` are the row's.
    """

    position: int
    share: float
    cosine: float | None
    prompt: str
    text: str


@dataclass(frozen=True)
class Nearness:
    """The embeddings that the run's semantic stage left in the store, by place in EXAMPLES."""

    store: EmbeddingStore
    stored: StoredVectors

    @classmethod
    def open(cls, catalogue: Catalogue) -> Nearness | None:
        """Look the run's rows up in the store: hashes of their texts, no encoding. None where there is no encoder on
        this machine, or no row has a vector.
        """
        run = catalogue.run
        if run.recipe.encoder is None or run.recipe.duplicates.semantic is None:
            return None
        corpus = Corpus(run.examples, run.texts, key="")
        every = np.arange(pl.scan_parquet(run.texts).select(pl.len()).collect().item(), dtype=np.uint32)
        try:
            store = embedder(run.recipe.encoder)
            stored = store.stored(corpus.key_texts(run.recipe.keys.duplicates, every))
        except UserError:
            return None
        return cls(store, stored) if stored.known.any() else None


def nearest_rows(
    catalogue: Catalogue, index: TextIndex, answer: str, *, nearness: Nearness | None = None, most: int = 5
) -> list[Source]:
    """The rows nearest to `answer`.

    With `nearness`: by the cosine of embeddings, exactly, over every row that has one (rows that an earlier stage
    dropped as copies have none) and those that share most words with it, which are encoded for this. Without: by the
    share of the answer's three-word runs that stand in a row. Rows that share no run are left out then.
    """
    runs = _runs(answer)
    worded = _worded(catalogue, index, runs)[:most]
    if nearness is None or not answer.strip():
        return worded
    query = nearness.store.encoder.encode([answer])[0]
    cosines = nearness.stored.cosines(query)
    best = np.argsort(-np.nan_to_num(cosines, nan=-2.0), kind="stable")[:most]
    position = _positions(catalogue)
    texts = catalogue.texts(position[best[~np.isnan(cosines[best])]])
    texts |= catalogue.texts([each.position for each in worded])
    places = [int(catalogue.places[place]) for place in texts]
    known = dict(zip(texts, cosines[places], strict=True))
    known |= _encoded(catalogue, nearness, query, {place: texts[place] for place in texts if np.isnan(known[place])})
    found = [
        Source(place, _share(runs, row), float(known[place]), row["prompt"] or "", row["answer"] or "")
        for place, row in texts.items()
    ]
    found.sort(key=lambda each: (-(each.cosine or 0.0), -each.share, each.position))
    return found[:most]


def _encoded(
    catalogue: Catalogue, nearness: Nearness, query: np.ndarray, rows: dict[int, dict[str, str]]
) -> dict[int, float]:
    """The cosine of rows that the store has not seen."""
    if not rows:
        return {}
    frame = pl.DataFrame([{name: row[name] for name in ("core", "answer")} for row in rows.values()])
    key = key_text(catalogue.run.recipe.keys.duplicates)
    vectors = nearness.store.encoder.encode(frame.select(key.alias("text"))["text"].fill_null("").to_list())
    return dict(zip(rows, (vectors @ query).tolist(), strict=True))


def _positions(catalogue: Catalogue) -> np.ndarray:
    """For each place in EXAMPLES the position of its row."""
    order = np.flatnonzero(catalogue.places >= 0)
    positions = np.zeros(int(catalogue.places.max(initial=-1)) + 1, dtype=np.uint32)
    positions[catalogue.places[order]] = order
    return positions


def _worded(catalogue: Catalogue, index: TextIndex, runs: set[str]) -> list[Source]:
    """Rows that share runs of words with an answer, most first.

    Candidates are found through the search index, rare runs counting more; their shares are then counted exactly.
    """
    if not runs:
        return []
    weight = np.zeros(len(catalogue), dtype=np.float32)
    asked = sorted(runs)
    for run in asked[:: max(1, len(asked) // _MOST_RUNS)][:_MOST_RUNS]:
        hits = index.search(f'"{run}"')
        if len(hits):
            weight[hits] += np.log1p(len(catalogue) / len(hits))
    best = np.argsort(-weight, kind="stable")[:_CANDIDATES]
    texts = catalogue.texts(best[weight[best] > 0].astype(np.uint32))
    found = [
        Source(place, _share(runs, row), None, row["prompt"] or "", row["answer"] or "") for place, row in texts.items()
    ]
    found.sort(key=lambda each: (-each.share, each.position))
    return [each for each in found if each.share > 0]


def _share(runs: set[str], row: dict[str, str]) -> float:
    return len(runs & _runs(f"{row['prompt']}\n{row['answer']}")) / len(runs) if runs else 0.0


def _runs(text: str) -> set[str]:
    words = _WORDS.findall(text.lower())
    return {" ".join(words[start : start + _RUN]) for start in range(max(0, len(words) - _RUN + 1))}
