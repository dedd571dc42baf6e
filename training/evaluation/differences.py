"""The paired difference of held-out loss between two arms, over all rows and by stratum."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from siftune.curation.recipe.sections import Compare
from siftune.training.evaluation import statistics
from siftune.training.evaluation.losses import HeldoutLosses
from siftune.training.evaluation.statistics import Estimate

STRATUM_COLUMNS = ("length_bin", "source", "leaked")


@dataclass(frozen=True)
class Difference:
    """Loss of one arm minus loss of the other over some rows, in nats; negative means that the first arm is better.

    per_token: summed loss over tokens (long answers weigh more). per_row: mean over rows of the loss per token.
    improved: share of rows on which the first arm has the lower loss; equal ones count half.
    """

    per_token: Estimate
    per_row: Estimate
    improved: Estimate
    p: float
    rows: int
    groups: int
    tokens: int


@dataclass(frozen=True)
class Stratum:
    """The same difference over the rows that have one value of `column`: length_bin, source or leaked."""

    column: str
    value: str
    difference: Difference


def paired_difference(
    losses: HeldoutLosses, arm: str, against: str, compare: Compare, *, seed: int
) -> tuple[Difference, float]:
    """The difference `arm` − `against`, and its sign-flip p over groups alone.

    Runs of an arm are averaged before rows are compared; the spread between runs widens the interval.

    Args:
        losses: the losses of all arms.
        arm, against: names of two arms.
        compare: the numbers of bootstrap draws and of permutations.
        seed: seed of all random numbers.
    """
    first, second = losses.nll[arm], losses.nll[against]

    # Three ratios of sums over rows: loss per token, mean of the rows' losses per token, share of improved rows.
    rows = first.mean(0) - second.mean(0)
    improved = np.where(rows == 0, 0.5, rows < 0)
    ones = np.ones_like(rows)
    numerators = statistics.group_sums(np.stack([rows, rows / losses.tokens, improved]), losses.groups)
    denominators = statistics.group_sums(np.stack([losses.tokens, ones, ones]), losses.groups)
    groups = numerators.shape[1]

    # Two sources of error: other groups of rows could have been drawn ...
    values, errors = statistics.ratio_error(numerators, denominators)
    pivots = statistics.bootstrap_pivots(numerators, denominators, draws=compare.bootstrap, seed=seed)
    row_draws = errors[:, None] * pivots

    # ... and other training seeds (not for the share, which is of the averaged runs).
    spreads = [
        statistics.run_error(first.sum(1) / losses.tokens.sum(), second.sum(1) / losses.tokens.sum()),
        statistics.run_error((first / losses.tokens).mean(1), (second / losses.tokens).mean(1)),
        (0.0, np.inf),
    ]
    draws = [
        row_errors + statistics.run_draws(*spread, draws=compare.bootstrap, seed=seed)
        for row_errors, spread in zip(row_draws, spreads, strict=True)
    ]
    per_token, per_row, share = (
        statistics.estimate(float(value), float(np.hypot(error, run_error)), sampled, groups=groups, freedom=freedom)
        for value, error, sampled, (run_error, freedom) in zip(values, errors, draws, spreads, strict=True)
    )

    # With several runs the larger p counts: over rows alone, or with the spread between runs.
    p_rows = statistics.sign_flip(numerators[0], draws=compare.permutations, seed=seed)
    several = max(len(first), len(second)) > 1
    p = max(p_rows, statistics.two_sided(float(values[0]), draws[0])) if several else p_rows
    tokens = int(losses.tokens.sum())
    return Difference(per_token, per_row, _within_one(share), p, len(rows), groups, tokens), p_rows


def strata_of(losses: HeldoutLosses, arm: str, against: str, compare: Compare, *, seed: int) -> Iterator[Stratum]:
    """The difference `arm` − `against` for every value of every column of STRATUM_COLUMNS.

    Args:
        losses: the losses of all arms.
        arm, against: names of two arms.
        compare: the numbers of bootstrap draws and of permutations.
        seed: seed of all random numbers.
    """
    for column in STRATUM_COLUMNS:
        values = losses.strata[column]
        for value in values.unique().drop_nulls().sort().to_list():
            part = losses.select((values == value).fill_null(value=False).to_numpy().astype(np.bool_))
            yield Stratum(column, str(value), paired_difference(part, arm, against, compare, seed=seed)[0])


def _within_one(share: Estimate) -> Estimate:
    """A share's interval ends at 0 and 1, and the minimum detectable effect says nothing about it."""
    if share.low is None or share.high is None:
        return share
    return Estimate(share.value, max(0.0, share.low), min(1.0, share.high), share.se, None)
