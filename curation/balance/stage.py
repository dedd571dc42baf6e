"""Even out instruction lengths in the training rows, as the recipe's `balance` section wants."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl

from siftune.curation.balance.balance import Balanced, balance
from siftune.curation.embeddings.store import embedder
from siftune.curation.ingest.references import read_reference
from siftune.curation.prepare import Prepared
from siftune.curation.run.recorder import Job
from siftune.curation.run.resources import Meter
from siftune.curation.splits.stage import Division
from siftune.curation.text.lengths import Counter, counter

_COPIES = pl.Schema({"id": pl.String, "copies": pl.UInt32})


def even_out(job: Job, prepared: Prepared, division: Division) -> tuple[Division, pl.DataFrame]:
    """Drop training rows so that instruction lengths come close to the target; held-out rows are left alone.

    Returns the division with what is alive afterwards, and (id, copies) of the training rows.

    Raises:
        UserError: the reference of the target cannot be read.
    """
    if job.recipe.balance is None:
        return division, pl.DataFrame(schema=_COPIES)
    with Meter() as meter:
        train = division.train()
        found = _balanced(job, prepared, train)
        left = job.ledger.enter("balance", found.decisions, division.alive)
    job.manifest["balance"] = found.to_dict()
    actions = dict(found.decisions["action"].value_counts().iter_rows())
    job.timed("balance", meter, rows=division.alive.height, kept=left.height, actions=actions, reused=False)
    copies = pl.DataFrame({"id": train["id"], "copies": found.copies}, schema=_COPIES)
    return replace(division, alive=left), copies.filter(pl.col("copies") > 0)


def _balanced(job: Job, prepared: Prepared, train: pl.DataFrame) -> Balanced:
    recipe, wanted = job.recipe, job.recipe.balance
    assert wanted is not None
    rows = train["row"].to_numpy()
    units = counter(recipe.model.name, revision=recipe.model.revision)
    lengths = units.of(frame["prompt"] for frame in prepared.corpus.frames(["prompt"], rows))
    costs = None
    if wanted.tokens is not None:
        costs = lengths + units.of(frame["answer"] for frame in prepared.corpus.frames(["answer"], rows))
    vectors = None
    if recipe.encoder is not None:
        vectors = embedder(recipe.encoder).embed(prepared.corpus.key_texts("prompt", rows), progress=job.progress)
    return balance(
        train,
        lengths,
        settings=wanted,
        seed=recipe.seed,
        unit=units.unit,
        vectors=vectors,
        costs=costs,
        reference=_reference(job, units),
    )


def _reference(job: Job, units: Counter) -> np.ndarray | None:
    wanted = job.recipe.balance
    if wanted is None or wanted.reference is None:
        return None
    return units.of([read_reference(wanted.reference, base=job.base)["prompt"]])
