"""Embeddings kept with a run: those of its kept rows, so that a later run need not encode them, wherever it runs."""

from __future__ import annotations

import polars as pl

from siftune.curation.embeddings.store import EmbeddingStore, embedder
from siftune.curation.prepare import Prepared
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.recorder import RunRecorder


def store_embeddings(recorder: RunRecorder, prepared: Prepared, kept: pl.DataFrame) -> None:
    """Copy the embeddings of kept rows (INDEX), those that the run has used, from the cache into the run folder."""
    recipe = recorder.recipe
    if recipe.encoder is None or (recipe.splits is None and recipe.duplicates.semantic is None):
        return
    store, rows = embedder(recipe.encoder), kept["row"].to_numpy()
    texts = [*prepared.corpus.key_texts("prompt", rows), *prepared.corpus.key_texts("dialogue", rows)]
    store.copy_stored(texts, recorder.run.embeddings_folder)
    recorder.manifest.encoder = store.encoder.name


def adopt_embeddings(run: RunFolder, store: EmbeddingStore) -> None:
    """Put the embeddings that a run keeps into the cache, as far as they are not there."""
    store.adopt(run.embeddings_folder)
