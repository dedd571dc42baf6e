"""Beside the losses of a verdict: what each arm really used, what curation took away, what answers repeat."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from siftune.curation.errors import UserError
from siftune.training.arm_names import BASE, arm_sort_key


@dataclass(frozen=True)
class Usage:
    """What the training of one arm and seed used: trained (completion) tokens, wall clock, steps and rows taken.

    `arm_rows`, `arm_tokens`: what the arm holds; `truncated_rows` of them were cut to the longest length trained.
    """

    arm: str
    seed: int
    tokens: int
    minutes: float
    steps: int
    rows: int
    arm_rows: int
    arm_tokens: int
    truncated_rows: int


@dataclass(frozen=True)
class Emission:
    """How much an arm's answers repeat its own training data: mean and largest longest common run of words."""

    arm: str
    answers: int
    mean_words: float
    longest_words: int
    mean_share: float


def read_usage(run: Path, seeds: Mapping[str, Sequence[int]]) -> tuple[Usage, ...]:
    """Read run/training/ARM/seed-K/done.json of every judged arm.

    Raises:
        UserError: an arm was judged whose training did not finish.
    """
    return tuple(_usage(run, arm, seed) for arm in seeds if arm != BASE for seed in seeds[arm])


def _usage(run: Path, arm: str, seed: int) -> Usage:
    path = run / "training" / arm / f"seed-{seed}" / "done.json"
    if not path.is_file():
        raise UserError(
            f"The arm {arm} (seed {seed}) was judged but its training is not finished: {path} is missing. "
            f"Finish it with: siftune train {run} --arm {arm}"
        )
    done = json.loads(path.read_text(encoding="utf-8"))
    counts = {name: int(done[name]) for name in ("tokens", "steps", "rows", "arm_rows", "arm_tokens", "truncated_rows")}
    return Usage(arm=arm, seed=seed, minutes=float(done["seconds"]) / 60, **counts)


def curated_away(usage: Sequence[Usage]) -> dict[str, int]:
    """Rows and answer tokens that the raw arm has more than the curated one; empty when either was not trained."""
    arms = {use.arm: use for use in usage}
    if not {"raw", "curated"} <= set(arms):
        return {}
    raw, curated = arms["raw"], arms["curated"]
    return {"rows": raw.arm_rows - curated.arm_rows, "answer_tokens": raw.arm_tokens - curated.arm_tokens}


def read_emission(run: Path) -> tuple[Emission, ...]:
    """Averages by arm of the repeated text in run/prompts/answers.parquet; empty when the suite was not answered."""
    path = run / "prompts" / "answers.parquet"
    if not path.is_file():
        return ()
    answers = pl.read_parquet(path, columns=["arm", "repeated_words", "repeated_share"]).drop_nulls()
    averages = answers.group_by("arm").agg(
        pl.len().alias("answers"),
        pl.col("repeated_words").mean().alias("mean_words"),
        pl.col("repeated_words").max().alias("longest_words"),
        pl.col("repeated_share").mean().alias("mean_share"),
    )
    return tuple(Emission(**row) for row in sorted(averages.to_dicts(), key=lambda row: arm_sort_key(row["arm"])))
