"""Train every arm under every seed, each in a process of its own, and skip what is done."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from siftune.curation.atomic_files import write_json
from siftune.curation.errors import UserError, did_you_mean
from siftune.curation.progress import Progress
from siftune.curation.recipe.sections import Training
from siftune.curation.run.folder import RunFolder
from siftune.training import jobs, models, sanity_checks, truncation, worker
from siftune.training.arm_names import BASE


def train(
    run: RunFolder | Path,
    *,
    arms: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Train the arms of a run and return what each done.json says, in the order of seeds, then arms.

    `arms` and `seeds` default to the recipe's. The arm `base` needs no training. An adapter that was made from the same
    data, settings, model and seed is kept; an interrupted one is continued. Rows that were cut go into the ledger.

    Raises:
        UserError: see `siftune.training.sanity_checks`, `siftune.training.models` and `.memory`; or an arm that curation did not make.
    """
    folder = run if isinstance(run, RunFolder) else RunFolder.open(run)
    planned = plan_jobs(folder, arms=arms, seeds=seeds)
    facts = []
    for job in planned:
        found = jobs.done(job.folder, key=job.key)
        if found is None:
            found = worker.call(
                "siftune.training.sft", job.model_dump_json(), log=job.folder / "worker.log", progress=progress
            )
        elif progress is not None:
            progress(f"{job.arm} seed {job.seed}: already trained", 1, 1)
        facts.append(found)
        _note(folder.path, found)
        truncation.record(folder.path, truncation.training_stage(job.arm), pl.read_parquet(job.folder / jobs.TRUNCATED))
    return facts


def plan_jobs(
    run: RunFolder, *, arms: Sequence[str] | None = None, seeds: Sequence[int] | None = None
) -> list[jobs.TrainJob]:
    """The training jobs of a run, after all checks that need no model in memory. Raises `UserError` like `train`."""
    settings = training_of(run)
    names = [arm for arm in dict.fromkeys(arms or settings.arms) if arm != BASE]
    frames = {arm: read_arm(run.path, arm) for arm in names}
    _check_sums(run.path, frames)
    sanity_checks.check_arms_differ({arm: jobs.data_hash(frame, ordered=False) for arm, frame in frames.items()})
    sanity_checks.check_heldout(frames, read_heldout(run.path))
    resolved = models.resolve(run.recipe.model.name, revision=run.recipe.model.revision)
    return [
        jobs.TrainJob(
            arm=arm,
            seed=seed,
            rows=run.path / "arms" / f"{arm}.parquet",
            folder=run.path / "training" / arm / f"seed-{seed}",
            data=jobs.data_hash(frames[arm], ordered=True),
            model=run.recipe.model,
            training=settings,
            resolved=resolved,
        )
        for seed in dict.fromkeys(seeds if seeds is not None else settings.seeds)
        for arm in names
    ]


def training_of(run: RunFolder) -> Training:
    """The training section of the run's recipe. Raises `UserError` when it has none."""
    if run.recipe.training is None:
        raise UserError(
            f"The recipe of {run.path} has no `training:` section. Add one (its defaults will do: `training: {{}}`)."
        )
    return run.recipe.training


def read_arm(run: Path, arm: str) -> pl.DataFrame:
    """ARM rows of an arm. Raises `UserError` naming the arms there are."""
    path = run / "arms" / f"{arm}.parquet"
    if not path.is_file():
        there = sorted(other.stem for other in (run / "arms").glob("*.parquet"))
        listed = ", ".join(there) or "none; curate first: siftune curate RECIPE.yaml"
        raise UserError(f"{run} has no arm {arm!r}.{did_you_mean(arm, there)} Arms there: {listed}.")
    frame = pl.read_parquet(path)
    if frame.is_empty():
        raise UserError(f"The arm {arm!r} of {run} has no rows: curation dropped all of them. See report.md.")
    return frame


def read_heldout(run: Path) -> pl.DataFrame:
    """HELDOUT rows. Raises `UserError` when the run has none: arms cannot be judged without."""
    path = run / "heldout" / "test.parquet"
    frame = pl.read_parquet(path) if path.is_file() else pl.DataFrame()
    if frame.is_empty():
        raise UserError(f"{run} has no held-out rows to judge arms on. Add `splits:` to the recipe and curate again.")
    return frame


def _check_sums(run: Path, frames: dict[str, pl.DataFrame]) -> None:
    """Conservation, asserted again before training: each arm holds exactly the rows that rows.parquet says."""
    path = run / "rows.parquet"
    if not path.is_file():
        return
    fates = pl.read_parquet(path, columns=["id", "arms"]).explode("arms", empty_as_null=True, keep_nulls=True)
    for arm, frame in frames.items():
        promised = fates.filter(pl.col("arms") == arm)["id"]
        if promised.len() and set(promised) != set(frame["id"]):
            raise UserError(
                f"The arm {arm!r} holds {frame.height:,} rows and rows.parquet promises {promised.len():,} (or other "
                f"ones). The run folder was changed after curation: curate again."
            )


def _note(run: Path, facts: dict[str, Any]) -> None:
    """Say in the run's manifest which model was trained, how it was loaded, why, and what each arm used."""
    path = run / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    shown = ("data", "adapter_hash", "model", "load", "budget", "steps", "tokens", "minutes", "truncated_rows")
    trained = manifest.setdefault("training", {})
    trained[f"{facts['arm']}-seed-{facts['seed']}"] = {name: facts[name] for name in shown}
    write_json(manifest, path)
