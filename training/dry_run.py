"""Estimate steps, tokens, minutes and memory of training on this machine, before it starts."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from siftune.curation.errors import UserError
from siftune.curation.progress import Progress
from siftune.curation.run.folder import RunFolder
from siftune.training import jobs, models
from siftune.training.arms import plan_jobs
from siftune.training.masks import tokenise
from siftune.training.schedule import plan_steps

PROBE_STEPS = 3


@dataclass(frozen=True)
class ArmPlan:
    """What training one arm under one seed would use of the budget."""

    arm: str
    rows: int
    truncated_rows: int
    #: Trained tokens that the arm holds.
    arm_tokens: int
    steps: int
    #: Trained tokens over the planned steps; None when the budget is wall clock.
    tokens: int | None
    #: Estimated minutes of training.
    minutes: float
    #: What to know about rows that the chat template writes in part or not at all.
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class DryRun:
    """The plans of all arms, and the speed and memory of a few steps on this machine."""

    arms: list[ArmPlan]
    #: Number of seeds.
    seeds: int
    tokens_per_second: float
    #: See `siftune.training.result.MemoryRecord`.
    memory: dict[str, Any]
    #: See `siftune.training.result.LoadRecord`.
    load: dict[str, str]

    @property
    def minutes(self) -> float:
        """Estimated minutes of training over all arms and seeds, without loading and evaluating."""
        return self.seeds * sum(arm.minutes for arm in self.arms)


def dry_run(
    run: RunFolder | Path,
    *,
    arms: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> DryRun:
    """Check everything that training checks, take three steps of the first arm, write nothing into the run.

    Args:
        run: The run or its folder.
        arms: Names of arms; the recipe's by default.
        seeds: Training seeds; the recipe's by default.
        progress: Called after each step.

    Raises:
        UserError: whatever would stop training.
    """
    folder = run if isinstance(run, RunFolder) else RunFolder.open(run)
    train_jobs = plan_jobs(folder, arms=arms, seeds=seeds)
    if not train_jobs:
        raise UserError("There is nothing to train: the base arm is the untrained model. Name another arm.")
    first = train_jobs[0]
    with tempfile.TemporaryDirectory(prefix="siftune-probe-") as scratch:
        probe = jobs.probe_in_worker(first, folder=Path(scratch), steps=PROBE_STEPS, progress=progress)
    tokenizer = models.load_tokenizer(first.resolved)
    plans = [_plan_arm(job, tokenizer, probe.tokens_per_second) for job in train_jobs if job.seed == first.seed]
    seeds_planned = len({job.seed for job in train_jobs})
    return DryRun(plans, seeds_planned, probe.tokens_per_second, probe.memory.model_dump(), probe.load.model_dump())


def _plan_arm(job: jobs.TrainJob, tokenizer: Any, tokens_per_second: float) -> ArmPlan:
    rows = tokenise(
        tokenizer, pl.read_parquet(job.rows, glob=False), max_length=job.training.max_length, system=job.model.system
    )
    arm_tokens = int(rows.trained_counts.sum())
    if job.training.budget.minutes is None:
        plan = plan_steps(rows.trained_counts, rows.names, job.training, seed=job.seed)
        steps, tokens = len(plan.steps), int(plan.tokens.sum())
        minutes = round(tokens / tokens_per_second / 60, 2)
    else:
        # The clock ends training: as many steps as fit at the measured speed.
        minutes, tokens = job.training.budget.minutes, None
        tokens_per_step = arm_tokens / len(rows.names) * job.training.batch_rows
        steps = int(minutes * 60 * tokens_per_second / tokens_per_step)
    return ArmPlan(
        arm=job.arm,
        rows=len(rows.names),
        truncated_rows=rows.truncated.height,
        arm_tokens=arm_tokens,
        steps=steps,
        tokens=tokens,
        minutes=minutes,
        warnings=rows.warnings,
    )
