"""What training would take on this machine, before it is paid for; and what of a row is trained."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from siftune.curation.errors import UserError, did_you_mean
from siftune.curation.progress import Progress
from siftune.curation.run.folder import RunFolder
from siftune.training import arms as arm_module
from siftune.training import jobs, models, worker
from siftune.training.masks import tokenise
from siftune.training.schedule import plan_steps

PROBE_STEPS = 3


@dataclass(frozen=True)
class ArmPlan:
    """What the budget buys of one arm."""

    arm: str
    rows: int
    truncated_rows: int
    #: Trained tokens of the whole arm, once.
    arm_tokens: int
    steps: int
    #: Trained tokens over the planned steps; unknown (None) when the budget is wall clock.
    tokens: int | None
    #: Estimated minutes of one seed.
    minutes: float


@dataclass(frozen=True)
class DryRun:
    """The plan of all arms, and what three steps on this machine said of speed and memory."""

    arms: list[ArmPlan]
    seeds: int
    tokens_per_second: float
    memory: dict[str, Any]
    load: dict[str, str]

    @property
    def minutes(self) -> float:
        """Estimated minutes of training over all arms and seeds, without loading and judging."""
        return self.seeds * sum(arm.minutes for arm in self.arms)


def dry_run(
    run: RunFolder | Path,
    *,
    arms: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> DryRun:
    """Check everything that training checks, take three steps of the first arm, write nothing into the run.

    Raises:
        UserError: whatever would stop training.
    """
    folder = run if isinstance(run, RunFolder) else RunFolder.open(run)
    planned = arm_module.plan_jobs(folder, arms=arms, seeds=seeds)
    if not planned:
        raise UserError("There is nothing to train: the only arm asked for is the untrained base.")
    first = planned[0]
    with tempfile.TemporaryDirectory(prefix="siftune-probe-") as scratch:
        probe = first.model_copy(update={"folder": Path(scratch), "probe_steps": PROBE_STEPS})
        facts = worker.call(
            "siftune.training.sft", probe.model_dump_json(), log=Path(scratch) / "worker.log", progress=progress
        )
    speed = float(facts["tokens_per_second"])
    tokenizer = models.load_tokenizer(first.resolved)
    of_one_seed = [job for job in planned if job.seed == first.seed]
    plans = [_plan(job, tokenizer, speed) for job in of_one_seed]
    return DryRun(plans, len({job.seed for job in planned}), speed, facts["memory"], facts["load"])


def _plan(job: jobs.TrainJob, tokenizer: Any, speed: float) -> ArmPlan:
    rows = tokenise(tokenizer, pl.read_parquet(job.rows), max_length=job.training.max_length)
    arm_tokens = int(rows.trained_counts.sum())
    minutes = job.training.budget.minutes
    if minutes is not None:
        steps = int(minutes * 60 * speed / arm_tokens * len(rows.names) / job.training.batch_rows)
        return ArmPlan(job.arm, len(rows.names), rows.truncated.height, arm_tokens, steps, None, minutes)
    plan = plan_steps(rows.trained_counts, job.training, seed=job.seed)
    tokens = int(plan.tokens.sum())
    estimated = tokens / speed / 60
    return ArmPlan(
        job.arm, len(rows.names), rows.truncated.height, arm_tokens, len(plan.steps), tokens, round(estimated, 2)
    )


def mask(run: RunFolder | Path, row: str) -> list[tuple[str, bool]]:
    """The tokens of a row of any arm or of the held-out set, as the model reads them: (text, whether it is trained).

    A character that is split over several tokens shows as `�` in each of them.

    Raises:
        UserError: no arm and no held-out set holds the row.
    """
    folder = run if isinstance(run, RunFolder) else RunFolder.open(run)
    settings = arm_module.training_of(folder)
    found = _find(folder.path, row)
    recipe = folder.recipe.model
    tokenizer = models.load_tokenizer(models.resolve(recipe.name, revision=recipe.revision))
    rows = tokenise(tokenizer, found, max_length=settings.max_length)
    return [
        (tokenizer.decode([int(token)]), bool(trained))
        for token, trained in zip(rows.ids[0], rows.trained[0], strict=True)
    ]


def _find(run: Path, row: str) -> pl.DataFrame:
    files = [*sorted((run / "arms").glob("*.parquet")), *sorted((run / "heldout").glob("*.parquet"))]
    for path in files:
        found = pl.scan_parquet(path).filter(pl.col("id") == row).collect()
        if found.height:
            return found
    known = pl.concat([pl.scan_parquet(path).select("id").head(1000) for path in files]).collect()["id"].to_list()
    example = f" An id looks like {known[0]}." if known else ""
    raise UserError(
        f"No arm and no held-out set of {run} holds the row {row!r}.{did_you_mean(row, known) or example} "
        f"A row that was dropped has its story in: siftune explain {run} {row}"
    )
