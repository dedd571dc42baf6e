"""A training job: one arm under one seed, with everything that decides the adapter, and the workers that do them."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Generator, Sequence
from pathlib import Path

import polars as pl

from siftune.curation.progress import Progress
from siftune.curation.recipe.sections import Section
from siftune.curation.recipe.training_sections import Model, Training
from siftune.training import worker
from siftune.training.models import ResolvedModel
from siftune.training.result import TrainingMeasurements, TrainingResult
from siftune.training.row_turns import MASK_VERSION, META_KEYS
from siftune.training.schedule import ORDER_VERSION

#: The module that trains a `TrainBatch`. It needs torch, so it is named here and imported only by its own process.
WORKER = "siftune.training.sft"

#: Rows that are hashed at a time.
_BATCH_ROWS = 10_000
#: Fields of `training:` that choose which arms are trained and what is reported, but change no adapter.
_FIELDS_WITHOUT_EFFECT = {"arms", "seeds", "report_to"}


class TrainJob(Section):
    """One arm under one seed."""

    arm: str
    seed: int
    #: Parquet with ARM columns.
    rows: Path
    #: Where the adapter, the log, the checkpoints and the result go.
    folder: Path
    #: `data_hash` of the rows, in order.
    data: str
    model: Model
    training: Training
    resolved: ResolvedModel
    #: Stop after this many steps without saving anything: the probe of a dry run.
    probe_steps: int | None = None

    @property
    def key(self) -> str:
        """Equal keys are equal adapters (same versions and machine): data in order, settings, model and seed."""
        settings = self.training.model_dump(exclude=_FIELDS_WITHOUT_EFFECT)
        identity = [self.data, settings, self.model.load, self.resolved.identity, self.seed]
        identity += [MASK_VERSION, self.model.system, ORDER_VERSION]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


class TrainBatch(Section):
    """What the worker is handed: jobs of one base model, which is loaded once for all of them."""

    jobs: list[TrainJob]


def train_in_workers(
    train_jobs: Sequence[TrainJob], *, progress: Progress | None = None
) -> Generator[TrainingResult, None, None]:
    """Train jobs one after the other and yield each result as soon as it is on disk, in the order of the jobs.

    Jobs of one base model share a process, so that it is loaded once. A process that dies after it has finished a job
    (memory may run out) is followed by a fresh one, which goes on from the last checkpoint. Trackers keep one run for a
    process: with them each job has its own.

    Args:
        train_jobs: The jobs; those of one base model one after the other.
        progress: Called after each optimiser step.

    Raises:
        UserError: what stops a job; the results before it stay.
        WorkerError: a process died in its first job.
    """

    def shared(job: TrainJob) -> tuple[str, str, str]:
        return job.resolved.identity, job.model.load, str(job.folder) if job.training.report_to else ""

    for _, group in itertools.groupby(train_jobs, key=shared):
        left = list(group)
        while left:
            batch, log = TrainBatch(jobs=left).model_dump_json(), left[0].folder / "worker.log"
            done = 0
            try:
                for answer in worker.answers(WORKER, batch, log=log, progress=progress):
                    done += 1
                    yield TrainingResult.model_validate(answer)
            except worker.WorkerError:
                if not done:
                    raise
            left = left[done:]


def train_in_worker(job: TrainJob, *, progress: Progress | None = None) -> TrainingResult:
    """Train one job in a process of its own. Raises like `train_in_workers`."""
    (result,) = train_in_workers([job], progress=progress)
    return result


def probe_in_worker(
    job: TrainJob, *, folder: Path, steps: int, progress: Progress | None = None
) -> TrainingMeasurements:
    """Take a few steps of a job in a process of its own and keep nothing but what was measured.

    Args:
        job: The job as training would get it.
        folder: A scratch folder in place of the job's own.
        steps: Optimiser steps that are taken.
        progress: Called after each step.

    Raises:
        UserError: what would stop training.
    """
    probe = job.model_copy(update={"folder": folder, "probe_steps": steps})
    batch, log = TrainBatch(jobs=[probe]).model_dump_json(), folder / "worker.log"
    return TrainingMeasurements.model_validate(worker.call(WORKER, batch, log=log, progress=progress))


def data_hash(rows: pl.DataFrame, *, ordered: bool) -> str:
    """sha256 over the dialogues of ARM rows. Without order, two sets of the same dialogues have the same hash; with it
    ids count too, since they decide when a row is trained.

    Where `meta` holds marks of turns, thoughts, tools or calls, which training reads, it counts as well.
    """
    columns = ["id", "messages"] if ordered else ["messages"]
    if "meta" in rows.columns and rows["meta"].str.contains_any(list(META_KEYS)).any():
        columns.append("meta")
    lines = [
        hashlib.sha256(line.encode()).digest()
        for batch in rows.select(columns).iter_slices(_BATCH_ROWS)
        for line in batch.write_ndjson().split("\n")[:-1]
    ]
    return hashlib.sha256(b"".join(lines if ordered else sorted(lines))).hexdigest()
