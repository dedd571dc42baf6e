"""What a training run tells while it goes on: a row a step in log.parquet, progress, and the clock that may end it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
from transformers import TrainerCallback

from siftune.curation.atomic_files import write_parquet
from siftune.curation.progress import Progress
from siftune.training import jobs
from siftune.training.schedule import StepPlan


class StepLog(TrainerCallback):
    """Loss, learning rate, gradient norm, tokens and seconds of each step; the clock."""

    def __init__(self, path: Path, plan: StepPlan, job: jobs.TrainJob, tell: Progress) -> None:
        self.path, self.plan, self.job, self.tell = path, plan, job, tell
        self.rows: list[dict[str, float]] = []
        self.tokens = 0
        self.started = self.written = time.monotonic()
        self.before = 0.0

    @property
    def seconds(self) -> float:
        """Seconds of training so far, those before an interruption included."""
        return self.before + time.monotonic() - self.started

    def share_of_time(self) -> float | None:
        """How much of a budget in minutes is used; None for other budgets."""
        return None if self.plan.minutes is None else self.seconds / (60.0 * self.plan.minutes)

    def resume(self, checkpoint: Path | None) -> None:
        """Start the clock, with the steps that the checkpoint already holds."""
        if checkpoint is not None:
            held = int(checkpoint.name.rpartition("-")[2])
            self.rows = pl.read_parquet(self.path).filter(pl.col("step") <= held).to_dicts()
            self.tokens, self.before = int(self.rows[-1]["tokens"]), float(self.rows[-1]["seconds"])
        self.started = time.monotonic()

    def count(self, tokens: int) -> None:
        """Count the trained tokens of the step that is being taken."""
        self.tokens += tokens

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - HF's signature
        """End the run when its time, or the probe, is over."""
        used = self.share_of_time()
        if (used is not None and used >= 1.0) or state.global_step == self.job.probe_steps:
            control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float], **_: Any) -> None:  # noqa: ARG002
        """Note the step. Comes before the checkpoint of the same step, which is not whole without it."""
        if "loss" not in logs:
            return
        self.rows.append(
            {
                "step": state.global_step,
                "loss": logs["loss"],
                "learning_rate": logs["learning_rate"],
                "grad_norm": float(logs["grad_norm"]),
                "tokens": self.tokens,
                "seconds": self.seconds,
            }
        )
        if time.monotonic() - self.written > 2.0 or state.global_step % self.job.training.checkpoint_steps == 0:
            self.write()
        self._tell(state.global_step, logs["loss"])

    def write(self) -> None:
        """Put the log on disk; a curve can be watched while it grows."""
        if self.job.probe_steps is None:
            write_parquet(pl.DataFrame(self.rows, schema=jobs.LOG_COLUMNS), self.path)
        self.written = time.monotonic()

    def _tell(self, step: int, loss: float) -> None:
        speed = self.tokens / max(self.seconds, 1e-9)
        used = self.share_of_time()
        done, total = (step, len(self.plan.steps)) if used is None else (int(100 * min(used, 1.0)), 100)
        left = self.seconds * (total - done) / max(done, 1)
        label = f"{self.job.arm} seed {self.job.seed}: loss {loss:.3f}, {speed:.0f} tokens/s, {_time(left)} left"
        self.tell(label, done, total)


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
