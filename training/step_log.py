"""What a training run reports while it goes on: a log with a row per step, progress, and the clock that may end it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
from transformers import TrainerCallback

from siftune.curation.progress import Progress
from siftune.training.jobs import TrainJob
from siftune.training.result import read_log, write_log
from siftune.training.schedule import StepPlan
from siftune.training.weight_average import WeightAverage

#: A log that is being written can be watched; it is not written more often than this.
_SECONDS_BETWEEN_WRITES = 2.0


class StepLog(TrainerCallback):
    """Loss, learning rate, gradient norm, tokens and seconds of each step; the clock; the mean of the last weights.

    Args:
        plan: The steps that are taken; says whether the budget is wall clock.
        job: Whose folder the log goes to.
        average: The mean that the weights of the last steps are taken into.
        progress: Called after each step with a label, the steps done and their number (per cent of the time when the
            budget is wall clock).
    """

    def __init__(self, plan: StepPlan, job: TrainJob, average: WeightAverage, progress: Progress) -> None:
        self.plan, self.job, self.average, self.progress = plan, job, average, progress
        self.rows: list[dict[str, float]] = []
        self.tokens = 0
        self.started = self.written = time.monotonic()
        self.seconds_before_resume = 0.0

    @property
    def seconds(self) -> float:
        """Seconds of training so far, those before an interruption included."""
        return self.seconds_before_resume + time.monotonic() - self.started

    def share_of_time(self) -> float | None:
        """The share of a budget in minutes that is used; None for other budgets."""
        return None if self.plan.minutes is None else self.seconds / (60.0 * self.plan.minutes)

    def share_of_budget(self, steps: float) -> float:
        """The share of the budget that is used after `steps` steps: of the time, or of the steps."""
        share = self.share_of_time()
        return steps / len(self.plan.steps) if share is None else share

    def resume(self, checkpoint: Path | None) -> None:
        """Start the clock, with the steps and the mean that the checkpoint already holds."""
        if checkpoint is not None:
            self.average.read(checkpoint)
            steps = int(checkpoint.name.rpartition("-")[2])
            self.rows = read_log(self.job.folder).filter(pl.col("step") <= steps).to_dicts()
            self.tokens, self.seconds_before_resume = int(self.rows[-1]["tokens"]), float(self.rows[-1]["seconds"])
        self.started = time.monotonic()

    def count(self, tokens: int) -> None:
        """Count the trained tokens of the step that is being taken."""
        self.tokens += tokens

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - HF's signature
        """Take the weights of a last step into their mean; end the run when its time, or the probe, is over."""
        if self.share_of_budget(state.global_step) > 1.0 - self.job.training.average_last:
            self.average.add()
        share = self.share_of_time()
        if (share is not None and share >= 1.0) or state.global_step == self.job.probe_steps:
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
        due = time.monotonic() - self.written > _SECONDS_BETWEEN_WRITES
        if due or state.global_step % self.job.training.checkpoint_steps == 0:
            self.write()
        self._report(state.global_step, logs["loss"])

    def write(self) -> None:
        """Put the log on disk; a probe leaves none."""
        if self.job.probe_steps is None:
            write_log(self.rows, self.job.folder)
        self.written = time.monotonic()

    def _report(self, step: int, loss: float) -> None:
        speed = self.tokens / max(self.seconds, 1e-9)
        share = self.share_of_time()
        done, total = (step, len(self.plan.steps)) if share is None else (int(100 * min(share, 1.0)), 100)
        left = self.seconds * (total - done) / max(done, 1)
        duration = f"{left:.0f} s" if left < 90 else f"{left / 60:.0f} min"
        label = f"{self.job.arm} seed {self.job.seed}: loss {loss:.3f}, {speed:.0f} tokens/s, {duration} left"
        self.progress(label, done, total)
