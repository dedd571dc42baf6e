"""The optimiser steps within a budget and the rows of each, planned before training starts.

A plan made ahead makes budgets exactly equal, a resumed run the same as an uninterrupted one, and progress exact.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from siftune.curation.recipe.training_sections import Budget, Training
from siftune.curation.sampling import shuffled_positions

#: Indices of rows, int64 (rows,).
RowIndices = npt.NDArray[np.int64]
#: Numbers of tokens, int64.
TokenCounts = npt.NDArray[np.int64]

#: A forward pass costs as much as this many tokens before it has seen one (4-bit weights are unpacked, kernels are
#: started); measured on two CPU cores. Only decides how a step is divided into passes.
PASS_OVERHEAD = 48
#: Changes with the rule that orders the rows of an arm: adapters of another order are trained anew.
ORDER_VERSION = 2
#: With a budget in minutes the clock ends the run, not the plan; this many rows are beyond any clock.
_ENDLESS_ROWS = 2_000_000


@dataclass(frozen=True)
class StepPlan:
    """The optimiser steps of one training run."""

    #: Indices of the rows of each step, in the order they are taken.
    steps: list[RowIndices]
    #: Trained tokens of each step, (steps,).
    tokens: TokenCounts
    #: The budget when it is wall clock, else None.
    minutes: float | None

    @property
    def rows(self) -> int:
        """Rows taken over all steps, repetitions counted."""
        return sum(len(step) for step in self.steps)


def plan_steps(trained: TokenCounts, names: Sequence[str], training: Training, *, seed: int) -> StepPlan:
    """Plan the steps within the budget of `training`.

    Every epoch takes all rows in a new order, `batch_rows` per step. The order is that of a hash of seed, epoch and
    the row's id, so arms that share rows take them in the same relative order, and the first rows of a large arm that
    are also in a small one are among the first of the small one. What the order does to a run is then much the same in
    both, and their difference holds less of it: common random numbers (Law, Simulation Modeling and Analysis, 5th ed.,
    2015, 11.2). A budget in tokens ends on the row that brings the total closest to it, so arms differ by less than
    one row.

    Args:
        trained: Trained tokens of each row, (rows,).
        names: The id of each row; a row that the arm repeats has one id several times.
        training: Budget and rows per step.
        seed: Of the order.
    """
    order = _order(trained, names, training.budget, batch_rows=training.batch_rows, seed=seed)
    size = training.batch_rows
    steps = [order[start : start + size] for start in range(0, len(order), size)]
    tokens = np.array([int(trained[step].sum()) for step in steps], dtype=np.int64)
    return StepPlan(steps, tokens, training.budget.minutes)


def _order(trained: TokenCounts, names: Sequence[str], budget: Budget, *, batch_rows: int, seed: int) -> RowIndices:
    """All rows that are taken, in their order."""
    rows, ids = len(trained), _distinct_ids(names)

    def shuffled(epochs: int) -> RowIndices:
        orders = [shuffled_positions(ids, seed=seed, purpose=f"training, epoch {epoch}") for epoch in range(epochs)]
        return np.concatenate(orders)

    if budget.tokens is not None:
        # End before or after the row that crosses the budget, whichever is closer to it.
        order = shuffled(math.ceil(budget.tokens / int(trained.sum())))
        running = np.cumsum(trained[order])
        crossing = int(np.searchsorted(running, budget.tokens))
        below = int(running[crossing - 1]) if crossing else 0
        below_is_closer = crossing and budget.tokens - below < int(running[crossing]) - budget.tokens
        return order[: crossing if below_is_closer else crossing + 1]
    if budget.steps is not None:
        count = budget.steps * batch_rows
    elif budget.epochs is not None:
        count = max(1, round(budget.epochs * rows))
    else:
        count = _ENDLESS_ROWS
    return shuffled(math.ceil(count / rows))[:count]


def _distinct_ids(names: Sequence[str]) -> pl.Series:
    """The ids, the second and further copies of a row numbered, so that copies are not taken one after the other."""
    seen: Counter[str] = Counter()
    ids = []
    for name in names:
        ids.append(f"{name}\ncopy {seen[name]}" if seen[name] else name)
        seen[name] += 1
    return pl.Series(ids, dtype=pl.String)


def forward_passes(lengths: TokenCounts, *, most_tokens: int, overhead: int = PASS_OVERHEAD) -> list[RowIndices]:
    """Divide one step into forward passes of rows of similar length, at the least cost; longest rows first.

    The cost of a pass is its tokens, padding included, plus `overhead`. By dynamic programming over the rows sorted by
    length.

    Args:
        lengths: Tokens of each row of the step, (rows,).
        most_tokens: A pass holds at most this many tokens, padding included, or one row.
        overhead: What a further pass costs, in tokens.

    Returns:
        The rows of each pass, as indices into `lengths`.
    """
    order = np.argsort(-lengths, kind="stable")
    # best[end]: the least cost of the first `end` rows; last_start[end]: where their last pass begins.
    best, last_start = [0.0] + [math.inf] * len(order), [0] * (len(order) + 1)
    for end in range(1, len(order) + 1):
        for start in range(end):
            padded = int(lengths[order[start]]) * (end - start)
            if padded > most_tokens and end - start > 1:
                continue
            if best[start] + padded + overhead < best[end]:
                best[end], last_start[end] = best[start] + padded + overhead, start
    bounds = [len(order)]
    while bounds[-1]:
        bounds.append(last_start[bounds[-1]])
    return [order[start:end] for end, start in itertools.pairwise(bounds)][::-1]


def learning_rate_factor(schedule: str, progress: float, *, warmup: float) -> float:
    """The learning rate as a share of its peak: progress / warmup while it rises; then, with x from 0 to 1 over the
    rest, 1 (constant), 1 − x (linear) or (1 + cos πx) / 2 (cosine; Loshchilov and Hutter 2017, arXiv 1608.03983).

    Args:
        schedule: constant, linear or cosine.
        progress: The share of the budget that is used, 0 to 1.
        warmup: The share of the budget over which the rate rises.
    """
    if progress < warmup:
        return progress / warmup
    x = min(1.0, (progress - warmup) / max(1e-9, 1.0 - warmup))
    if schedule == "linear":
        return 1.0 - x
    return 0.5 * (1.0 + math.cos(math.pi * x)) if schedule == "cosine" else 1.0
