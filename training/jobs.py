"""What a training worker is told, what it leaves, and when its work counts as done."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import polars as pl

from siftune.curation.recipe.sections import Model, Section, Training
from siftune.training.models import ResolvedModel

DONE = "done.json"
LOG = "log.parquet"
TRUNCATED = "truncated.parquet"
_BATCH = 10_000
_NOT_OF_ONE_RUN = {"arms", "seeds", "report_to"}

#: Log of a training run, one row a step. `tokens` and `seconds` are running totals.
LOG_COLUMNS = pl.Schema(
    {
        "step": pl.Int64,
        "loss": pl.Float64,
        "learning_rate": pl.Float64,
        "grad_norm": pl.Float64,
        "tokens": pl.Int64,
        "seconds": pl.Float64,
    }
)


class TrainJob(Section):
    """One arm under one seed."""

    arm: str
    seed: int
    #: Parquet with ARM columns.
    rows: Path
    #: Where adapter, log, checkpoints and done.json go.
    folder: Path
    data: str
    model: Model
    training: Training
    resolved: ResolvedModel
    #: Stop after so many steps without saving anything: the probe of a dry run.
    probe_steps: int | None = None

    @property
    def key(self) -> str:
        """Equal keys are equal adapters (same versions and machine): data in order, settings, model and seed."""
        settings = self.training.model_dump(exclude=_NOT_OF_ONE_RUN)
        parts = [self.data, settings, self.model.load, self.resolved.identity, self.seed]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def data_hash(rows: pl.DataFrame, *, ordered: bool) -> str:
    """sha256 over the dialogues of ARM rows. Without order, two sets of the same dialogues have the same hash."""
    lines = [
        hashlib.sha256(line.encode()).digest()
        for batch in rows.select("messages").iter_slices(_BATCH)
        for line in batch.write_ndjson().split("\n")[:-1]
    ]
    return hashlib.sha256(b"".join(lines if ordered else sorted(lines))).hexdigest()


def done(folder: Path, *, key: str | None = None) -> dict[str, Any] | None:
    """done.json of a finished training run; None when it is not finished, or was another job than `key`."""
    path = folder / DONE
    if not path.is_file():
        return None
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document if key in {None, document["key"]} else None
