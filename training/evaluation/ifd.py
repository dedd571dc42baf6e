"""Instruction-following difficulty: how much the prompt of a row helps the untrained base to say its answer.

IFD = exp(L(A|Q) − L(A)), the ratio of two perplexities of the answer, with and without the prompt (Li et al.,
Superfiltering: Weak-to-Strong Data Filtering for Fast Instruction-Tuning, arXiv 2402.00530, section 2). It is reported
and chooses nothing: docs/selection.md says where it fails.
"""

from __future__ import annotations

import polars as pl

from siftune.curation.checksums import checksum
from siftune.curation.progress import Progress
from siftune.curation.recipe.training_sections import Training
from siftune.curation.review import report
from siftune.curation.run.cache_key import measure_key
from siftune.curation.run.folder import RunFolder
from siftune.training import jobs, models, worker
from siftune.training.arms import read_arm
from siftune.training.evaluation.ifd_worker import WORKER, IfdJob


def measure_ifd(run: RunFolder, *, arm: str = "curated", progress: Progress | None = None) -> None:
    """Measure the rows of an arm, unless that is done, write `RunFolder.ifd_path` and the report again.

    Args:
        run: a curated run.
        arm: the arm whose rows are measured.
        progress: called while the worker goes on.

    Raises:
        UserError: there is no such arm, it has no rows, or the base model is not to be had.
    """
    rows, settings = read_arm(run.path, arm), run.recipe.training or Training()
    resolved = models.resolve(run.recipe.model.name, revision=run.recipe.model.revision)
    key = measure_key("ifd", {"max_length": settings.max_length}, jobs.data_hash(rows, ordered=True), resolved.identity)
    if not run.ifd_path.is_file() or pl.read_parquet_metadata(run.ifd_path).get("key") != key:
        job = IfdJob(
            rows=run.arm(arm),
            out=run.ifd_path,
            max_length=settings.max_length,
            resolved=resolved,
            notes={
                "key": key,
                "arm": arm,
                "rows": checksum(run.arm(arm)),
                "model": run.recipe.model.name,
                "max_length": str(settings.max_length),
            },
        )
        worker.call(WORKER, job.model_dump_json(), log=run.ifd_path.with_name("worker.log"), progress=progress)
    report.write(run)
