"""What a budget buys: which rows stand in which optimiser step, planned before training starts.

A plan made ahead makes equal budgets exact, a resumed run the same run, and progress honest.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from siftune.curation.recipe.sections import Budget, Training

Rows = npt.NDArray[np.int64]
TokenCounts = npt.NDArray[np.int64]

#: A forward pass costs as much as this many tokens before it has seen one (4-bit weights are unpacked, kernels are
#: started); measured on two CPU cores. Only decides where a step is cut into passes.
PASS_OVERHEAD = 48
#: With a budget in minutes the clock ends the run, not the plan; this many rows are beyond any clock.
_ENDLESS_ROWS = 2_000_000


@dataclass(frozen=True)
class StepPlan:
    """The steps of one training run: positions of the rows of each step, in the order they are taken."""

    steps: list[Rows]
    #: Trained tokens of each step.
    tokens: TokenCounts
    #: Set when the budget is wall clock.
    minutes: float | None

    @property
    def rows(self) -> int:
        """Rows taken over all steps, repetitions counted."""
        return sum(len(step) for step in self.steps)


def plan_steps(trained: TokenCounts, training: Training, *, seed: int) -> StepPlan:
    """StepPlan the steps for rows with these numbers of trained tokens.

    Rows are taken in a new random order each epoch, `batch_rows` a step. A budget in tokens ends on the row that
    brings the total closest to it, so arms differ by less than one row.
    """
    order = _order(trained, training.budget, batch_rows=training.batch_rows, seed=seed)
    size = training.batch_rows
    steps = [order[start : start + size] for start in range(0, len(order), size)]
    tokens = np.array([int(trained[step].sum()) for step in steps], dtype=np.int64)
    return StepPlan(steps, tokens, training.budget.minutes)


def _order(trained: TokenCounts, budget: Budget, *, batch_rows: int, seed: int) -> Rows:
    rows = len(trained)
    if budget.tokens is not None:
        epochs = math.ceil(budget.tokens / int(trained.sum()))
        order = _shuffled(rows, epochs, seed)
        spent = np.cumsum(trained[order])
        last = int(np.searchsorted(spent, budget.tokens))
        before = int(spent[last - 1]) if last else 0
        closer = last and budget.tokens - before < int(spent[last]) - budget.tokens
        return order[: last if closer else last + 1]
    if budget.steps is not None:
        wanted = budget.steps * batch_rows
    elif budget.epochs is not None:
        wanted = max(1, round(budget.epochs * rows))
    else:
        wanted = _ENDLESS_ROWS
    return _shuffled(rows, math.ceil(wanted / rows), seed)[:wanted]


def _shuffled(rows: int, epochs: int, seed: int) -> Rows:
    random = np.random.default_rng(seed)
    return np.concatenate([random.permutation(rows) for _ in range(epochs)])


def forward_passes(lengths: TokenCounts, *, most_tokens: int, overhead: int = PASS_OVERHEAD) -> list[Rows]:
    """Cut one step into forward passes of similar length: the cut with the least padded tokens, longest rows first.

    Returns positions in `lengths`. A pass holds at most `most_tokens` tokens, padding included, or one row. By dynamic
    programming over the rows sorted by length; `overhead` is what a further pass costs, in tokens.
    """
    order = np.argsort(-lengths, kind="stable")
    best, cut = [0.0] + [math.inf] * len(order), [0] * (len(order) + 1)
    for end in range(1, len(order) + 1):
        for start in range(end):
            padded = int(lengths[order[start]]) * (end - start)
            if padded > most_tokens and end - start > 1:
                continue
            if best[start] + padded + overhead < best[end]:
                best[end], cut[end] = best[start] + padded + overhead, start
    bounds = [len(order)]
    while bounds[-1]:
        bounds.append(cut[bounds[-1]])
    return [order[start:end] for end, start in itertools.pairwise(bounds)][::-1]


def learning_rate_factor(schedule: str, progress: float, *, warmup: float) -> float:
    """The learning rate at `progress` (0 to 1 of the budget) as a share of its peak."""
    if progress < warmup:
        return progress / warmup
    past = min(1.0, (progress - warmup) / max(1e-9, 1.0 - warmup))
    if schedule == "linear":
        return 1.0 - past
    return 0.5 * (1.0 + math.cos(math.pi * past)) if schedule == "cosine" else 1.0
