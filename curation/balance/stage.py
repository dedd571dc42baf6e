"""Even out instruction lengths in the training rows, as the recipe's `balance` section says."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from siftune.curation.balance.selection import balance_lengths
from siftune.curation.embeddings.store import embedder
from siftune.curation.ingest.references import read_reference
from siftune.curation.prepare import Prepared
from siftune.curation.recipe.sections import Balance
from siftune.curation.run.recorder import RunRecorder
from siftune.curation.splits.stage import SplitResult
from siftune.curation.text.lengths import length_counter

_COPIES = pl.Schema({"id": pl.String, "copies": pl.UInt32})


def balance_rows(recorder: RunRecorder, prepared: Prepared, splits: SplitResult) -> tuple[SplitResult, pl.DataFrame]:
    """Drop training rows so that instruction lengths come close to the target; held-out rows are left alone.

    Returns the splits with what is alive afterwards, and (id, copies) of the training rows.

    Raises:
        UserError: the reference of the target cannot be read.
    """
    recipe, settings = recorder.recipe, recorder.recipe.balance
    if settings is None:
        return splits, pl.DataFrame(schema=_COPIES)
    with recorder.stage("balance", rows=splits.alive.height) as record:
        if _is_balanced(prepared, settings):
            # As near to the target as the first run brought it; another step towards it would only cost rows.
            settings = settings.model_copy(update={"target": "temperature", "temperature": 1.0})
        train = splits.train()
        rows = train["row"].to_numpy()

        # Lengths in tokens of the base model; answers are counted only where the budget is in tokens.
        units = length_counter(recipe.model.name, revision=recipe.model.revision)
        lengths = units.of(frame["prompt"] for frame in prepared.corpus.frames(["prompt"], rows))
        costs = reference = vectors = None
        if settings.tokens is not None:
            costs = lengths + units.of(frame["answer"] for frame in prepared.corpus.frames(["answer"], rows))
        if settings.reference is not None:
            reference = units.of([read_reference(settings.reference, base=recorder.base)["prompt"]])

        # Embeddings of the prompts, to keep the most diverse rows of each length.
        if recipe.encoder is not None:
            prompts = prepared.corpus.key_texts("prompt", rows)
            vectors = embedder(recipe.encoder).embed(prompts, progress=recorder.progress)

        balanced = balance_lengths(
            train,
            lengths,
            settings=settings,
            seed=recipe.seed,
            unit=units.unit,
            vectors=vectors,
            costs=costs,
            reference=reference,
        )
        alive = recorder.decide(record, balanced.decisions, splits.alive)
        recorder.manifest.balance = balanced.record()
    copies = pl.DataFrame({"id": train["id"], "copies": balanced.copies}, schema=_COPIES)
    return replace(splits, alive=alive), copies.filter(pl.col("copies") > 0)


def _is_balanced(prepared: Prepared, settings: Balance) -> bool:
    """Whether the data are a curated set that was balanced by these settings."""
    notes = list(prepared.curated.values())
    return len(prepared.sources) == len(notes) == 1 and notes[0].balance == settings.model_dump()
