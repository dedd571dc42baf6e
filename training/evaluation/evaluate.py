"""Measure the losses of the base and of every trained arm on the held-out rows, in a process of its own.

Losses that are there already, of the same weights on the same rows, are kept.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from siftune.curation.errors import UserError
from siftune.curation.progress import Progress
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.paths import training_name
from siftune.curation.split_names import TEST
from siftune.training import jobs, models, truncation, worker
from siftune.training.arm_names import BASE
from siftune.training.arms import read_heldout, training_of
from siftune.training.evaluation.loss_worker import WORKER, EvaluationJob, EvaluationTarget
from siftune.training.evaluation.losses import Evaluation, read_evaluation
from siftune.training.result import finished_trainings, read_truncated
from siftune.training.row_turns import MASK_VERSION


def evaluate(
    run: RunFolder | Path,
    *,
    arms: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> list[Evaluation]:
    """Evaluate the base and every trained adapter on the held-out test rows; returns their evaluations, base first.

    Writes evaluation/base and evaluation/ARM-seed-K, each a parquet (LOSS_COLUMNS) and a json (`Evaluation`), and
    truncated rows into the ledger.

    Args:
        run: a run with trained arms.
        arms: only these; all that are trained by default.
        seeds: only training runs of these seeds; all by default.
        progress: called while the worker goes on.

    Raises:
        UserError: the run has no held-out rows, or an arm is not trained.
    """
    run = run if isinstance(run, RunFolder) else RunFolder.open(run)
    settings, recipe, folder = training_of(run), run.recipe, run.evaluation_folder
    resolved = models.resolve(recipe.model.name, revision=recipe.model.revision)
    base = EvaluationTarget(name=BASE, adapter=None, digest=resolved.identity)
    targets = [base, *trained_targets(run, arms, seeds)]

    # Losses can be compared only if rows, their limits and the base are the same: that is the key.
    base_settings = [recipe.model.load, recipe.model.system]
    limits = [settings.max_length, recipe.compare.max_rows, recipe.seed, MASK_VERSION, *base_settings]
    key = json.dumps([jobs.data_hash(read_heldout(run.path), ordered=True), *limits, resolved.identity])
    _remove_stale(folder, key)
    stored = {target.name: read_evaluation(folder, target.name) for target in targets}
    kept = {
        target.name: evaluation
        for target in targets
        if (evaluation := stored[target.name]) is not None and evaluation.digest == target.digest
    }

    job = EvaluationJob(
        heldout=run.heldout(TEST),
        folder=folder,
        max_length=settings.max_length,
        max_rows=recipe.compare.max_rows,
        seed=recipe.seed,
        model=recipe.model,
        resolved=resolved,
        targets=[target for target in targets if target.name not in kept],
        engine=next((evaluation.engine for evaluation in kept.values()), None),
        key=key,
    )
    if job.targets:
        worker.call(WORKER, job.model_dump_json(), log=folder / "worker.log", progress=progress)

    _require_same_masks(run, [target.name for target in targets])
    truncated = read_truncated(folder)
    if truncated is not None:
        truncation.record(run.path, truncation.EVALUATION_STAGE, truncated)
    evaluations = [read_evaluation(folder, target.name) for target in targets]
    return [evaluation for evaluation in evaluations if evaluation is not None]


def trained_targets(run: RunFolder, arms: Sequence[str] | None, seeds: Sequence[int] | None) -> list[EvaluationTarget]:
    """The finished adapters of these arms and seeds, all when None; raises `UserError` where one is not trained."""
    trainings = [
        (folder, result)
        for folder, result in finished_trainings(run.path)
        if (arms is None or result.arm in arms) and (seeds is None or result.seed in seeds)
    ]
    trained = {result.arm for _, result in trainings}
    missing = [arm for arm in arms or [] if arm not in trained and arm != BASE]
    if missing or not trained:
        options = "".join(f" --arm {arm}" for arm in missing)
        what = f"{', '.join(missing)} of {run.path} is not trained" if missing else f"No arm of {run.path} is trained"
        raise UserError(f"{what}. Run: siftune train {run.path}{options}")
    return [
        EvaluationTarget(
            name=training_name(result.arm, result.seed),
            adapter=run.adapter(result.arm, result.seed),
            digest=result.adapter_hash,
        )
        for _, result in trainings
    ]


def _remove_stale(folder: Path, key: str) -> None:
    """Remove the losses of other rows or of another base: a verdict must not mix the two."""
    for path in folder.glob("*.json"):
        evaluation = read_evaluation(folder, path.stem)
        if evaluation is None or evaluation.key != key:
            path.unlink()
            path.with_suffix(".parquet").unlink(missing_ok=True)


def _require_same_masks(run: RunFolder, names: Sequence[str]) -> None:
    """Raise `UserError` unless all evaluations are of the same tokens."""
    first = pl.read_parquet(run.losses(names[0]), columns=["id", "mask_hash"], glob=False)
    for name in names[1:]:
        if not first.equals(pl.read_parquet(run.losses(name), columns=["id", "mask_hash"], glob=False)):
            raise UserError(
                f"{name} and {names[0]} were evaluated on different tokens. Remove {run.evaluation_folder} and "
                "evaluate again."
            )
