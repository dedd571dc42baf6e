"""Train every arm under every seed, in processes of their own, and skip what is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import polars as pl

from siftune.curation.checksums import whole
from siftune.curation.errors import UserError, did_you_mean
from siftune.curation.progress import Progress
from siftune.curation.recipe.training_sections import Training
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.manifest import TrainingRecord
from siftune.curation.run.paths import RunPaths, training_name
from siftune.curation.split_names import TEST
from siftune.training import jobs, models, sanity_checks, truncation
from siftune.training.arm_names import BASE
from siftune.training.masks import tokenise
from siftune.training.result import TrainingResult, read_result, read_truncated


def train(
    run: RunFolder | Path,
    *,
    arms: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    progress: Progress | None = None,
    warn: Callable[[str], None] | None = None,
) -> list[TrainingResult]:
    """Train the arms of a run and return their results, in the order of seeds, then arms.

    An adapter that was made from the same data, settings, model and seed is kept; an interrupted one is continued.
    Truncated rows go into the ledger.

    Args:
        run: The run or its folder.
        arms: Names of arms; the recipe's by default. The arm `base` needs no training and is passed over.
        seeds: Training seeds; the recipe's by default.
        progress: Called after each optimiser step.
        warn: Called with each sentence about rows that the chat template writes in part or not at all, before training;
            and about arms whose adapters are equal, after it.

    Raises:
        UserError: an arm that curation did not write, or a check of `sanity_checks`, `models` or `memory` that fails.
    """
    folder = run if isinstance(run, RunFolder) else RunFolder.open(run)
    with folder.locked():
        results = []
        train_jobs = plan_jobs(folder, arms=arms, seeds=seeds)
        if warn is not None and not arms:
            for arm, other in _repeated_arms(folder).items():
                warn(f"{arm} is not trained: it holds the same rows as {other}")
        finished = [read_result(job.folder, key=job.key) for job in train_jobs]
        unfinished = [job for job, result in zip(train_jobs, finished, strict=True) if result is None]
        _check_rows(folder, unfinished, warn)
        with closing(jobs.train_in_workers(unfinished, progress=progress)) as trained:
            for job, stored in zip(train_jobs, finished, strict=True):
                if stored is not None and progress is not None:
                    progress(f"{job.arm} seed {job.seed}: already trained", 1, 1)
                result = stored or next(trained)
                _note_in_manifest(folder, result)
                truncated = read_truncated(job.folder)
                if truncated is not None:
                    truncation.record(folder.path, truncation.training_stage(job.arm), truncated)
                results.append(result)
        if warn is not None:
            for sentence in _equal_adapters(results):
                warn(sentence)
        return results


def _equal_adapters(results: Sequence[TrainingResult]) -> Iterator[str]:
    """A sentence for arms of one seed with one adapter: rows come in one order for all arms, so a small budget can buy
    the same rows of them."""
    arms: dict[tuple[int, str], list[str]] = {}
    for result in results:
        arms.setdefault((result.seed, result.adapter_hash), []).append(result.arm)
    for (seed, _), names in arms.items():
        if len(names) > 1:
            yield (
                f"{' and '.join(names)} have the same adapter with seed {seed}: the budget bought the same rows of "
                "them. Raise training.budget to tell them apart"
            )


def _check_rows(run: RunFolder, unfinished: Sequence[jobs.TrainJob], warn: Callable[[str], None] | None) -> None:
    """Find the rows that cannot be trained whole before anything is trained, those that arms are compared on as well:
    into the ledger, and said to `warn`.

    Raises:
        UserError: an arm, or the test split, holds no row that can be trained.
    """
    if not unfinished:
        return
    first = unfinished[0]
    tokenizer = models.load_tokenizer(first.resolved)
    frames = [
        (arm, truncation.training_stage(arm), pl.read_parquet(whole(rows), glob=False))
        for arm, rows in {job.arm: job.rows for job in unfinished}.items()
    ]
    for name, stage, frame in [*frames, ("held-out rows", truncation.EVALUATION_STAGE, read_heldout(run.path))]:
        try:
            rows = tokenise(tokenizer, frame, max_length=first.training.max_length, system=first.model.system)
        except UserError as fault:
            raise UserError(f"{name}: {fault}") from None
        if stage != truncation.EVALUATION_STAGE:  # evaluation may be limited to some of them, and records its own
            truncation.record(run.path, stage, rows.truncated)
        if warn is not None:
            for warning in rows.warnings:
                warn(f"{name}: {warning}")


def plan_jobs(
    run: RunFolder, *, arms: Sequence[str] | None = None, seeds: Sequence[int] | None = None
) -> list[jobs.TrainJob]:
    """The training jobs of a run, after all checks that need no model in memory. Raises `UserError` like `train`."""
    settings = training_of(run)
    of_recipe = [arm for arm in settings.arm_names if arm not in _repeated_arms(run)]
    names = [arm for arm in dict.fromkeys(arms or of_recipe) if arm != BASE]
    frames = {arm: read_arm(run.path, arm) for arm in names}
    _check_sums(run.path, frames)
    sanity_checks.check_arms_differ({arm: jobs.data_hash(frame, ordered=False) for arm, frame in frames.items()})
    sanity_checks.check_heldout(frames, read_heldout(run.path))
    resolved = models.resolve(run.recipe.model.name, revision=run.recipe.model.revision)
    return [
        jobs.TrainJob(
            arm=arm,
            seed=seed,
            rows=run.arm(arm),
            folder=run.training(arm, seed),
            data=jobs.data_hash(frames[arm], ordered=True),
            model=run.recipe.model,
            training=settings,
            resolved=resolved,
        )
        for seed in dict.fromkeys(seeds if seeds is not None else settings.seeds)
        for arm in names
    ]


def _repeated_arms(run: RunFolder) -> dict[str, str]:
    """The arms by stage or selection that hold the same rows as an arm that the recipe names before, with that arm."""
    counts, names = run.manifest.counts, training_of(run).arm_names
    repeated: dict[str, str] = {}
    for position, name in enumerate(names):
        record = counts.arms.get(name) if counts else None
        if record and (record.left_out or record.selection):
            before = ("curated", *names[:position])  # curated counts wherever it stands
            other = next((other for other in before if other in names and other in record.same_as), None)
            if other:
                repeated[name] = other
    return repeated


def training_of(run: RunFolder) -> Training:
    """The training section of the run's recipe. Raises `UserError` when it has none."""
    if run.recipe.training is None:
        raise UserError(
            f"The recipe of {run.path} has no `training:` section. Add one (its defaults will do: `training: {{}}`)."
        )
    return run.recipe.training


def read_arm(run: Path, arm: str) -> pl.DataFrame:
    """ARM rows of an arm. Raises `UserError` with the run's arms when there is no such arm, or when it has no rows."""
    path = RunPaths(run).arm(arm)
    if not path.is_file():
        names = RunPaths(run).arms()
        listed = ", ".join(names) or "none; curate first: siftune curate RECIPE.yaml"
        raise UserError(f"{run} has no arm {arm!r}.{did_you_mean(arm, names)} Its arms: {listed}.")
    frame = pl.read_parquet(whole(path), glob=False)
    if frame.is_empty():
        raise UserError(f"The arm {arm!r} of {run} has no rows: curation dropped all of them. See report.md.")
    return frame


def read_heldout(run: Path) -> pl.DataFrame:
    """HELDOUT rows of the test split. Raises `UserError` when the run has none: arms cannot be compared without."""
    path = RunPaths(run).heldout(TEST)
    frame = pl.read_parquet(whole(path), glob=False) if path.is_file() else pl.DataFrame()
    if frame.is_empty():
        raise UserError(f"{run} has no held-out rows to compare arms on. Add `splits:` to the recipe and curate again.")
    return frame


def _check_sums(run: Path, frames: dict[str, pl.DataFrame]) -> None:
    """Conservation, checked again before training: each arm holds exactly the rows that rows.parquet says."""
    path = RunPaths(run).rows_path
    if not path.is_file():
        return
    fates = pl.read_parquet(whole(path), columns=["id", "arms"], glob=False).explode(
        "arms", empty_as_null=True, keep_nulls=True
    )
    for arm, frame in frames.items():
        expected_ids = fates.filter(pl.col("arms") == arm)["id"]
        if expected_ids.len() and set(expected_ids) != set(frame["id"]):
            raise UserError(
                f"The arm {arm!r} holds {frame.height:,} rows, but rows.parquet lists {expected_ids.len():,} (or other "
                f"ones). The run folder was changed after curation: curate again."
            )


def _note_in_manifest(run: RunFolder, result: TrainingResult) -> None:
    """Record in the run's manifest which model was trained, how it was loaded, why, and what each arm used."""
    manifest = run.manifest
    manifest.training[training_name(result.arm, result.seed)] = TrainingRecord.model_validate(result.model_dump())
    manifest.write(run.manifest_path)
