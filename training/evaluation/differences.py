"""The paired difference of held-out loss between two arms, over all rows and by stratum."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from siftune.curation.exact_interval import clopper_pearson
from siftune.curation.recipe.training_sections import Compare
from siftune.training.arm_names import BASE
from siftune.training.evaluation import statistics
from siftune.training.evaluation.losses import HeldoutLosses
from siftune.training.evaluation.run_noise import contrast
from siftune.training.evaluation.statistics import Estimate, Floats

STRATUM_COLUMNS = ("length_bin", "source", "leaked", "topic")
#: A topic with fewer held-out rows is no stratum: of fifty topics most would have intervals that say nothing.
_FEWEST_ROWS_OF_TOPIC = 20


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
    """The same difference over the rows that have one value of `column`: length_bin, source, leaked or topic."""

    column: str
    value: str
    difference: Difference


def paired_difference(
    losses: HeldoutLosses, arm: str, against: str, compare: Compare, *, seed: int
) -> tuple[Difference, float]:
    """The difference `arm` − `against`, and its sign-flip p over groups alone.

    Every interval and every p holds the noise of the held-out rows and, from two seeds on, that of the training runs
    (`siftune.training.evaluation.run_noise`). With single runs the latter is not known, and not in them.

    Args:
        losses: the losses of all arms.
        arm, against: names of two arms.
        compare: the numbers of bootstrap draws and of permutations.
        seed: seed of all random numbers.
    """
    over_runs = contrast(losses.seeds, arm, against)

    # Three ratios of sums over rows: loss per token, mean of the rows' losses per token, share of improved rows.
    rows = over_runs.apply(losses.nll)
    shares = _improved(losses, arm, against)
    ones = np.ones_like(rows)
    numerators = statistics.group_sums(np.stack([rows, rows / losses.tokens, shares.mean(0)]), losses.groups)
    denominators = statistics.group_sums(np.stack([losses.tokens, ones, ones]), losses.groups)
    groups = numerators.shape[1]

    # Two sources of error: other groups of rows could have been drawn ...
    values, errors = statistics.ratio_error(numerators, denominators)
    pivots = statistics.bootstrap_pivots(numerators, denominators, draws=compare.bootstrap, seed=seed)
    row_draws = errors[:, None] * pivots

    # ... and other training seeds.
    per_token_runs = {name: nll.sum(1) / losses.tokens.sum() for name, nll in losses.nll.items()}
    per_row_runs = {name: (nll / losses.tokens).mean(1) for name, nll in losses.nll.items()}
    share_freedom = len(shares) - 1
    share_error = float(np.std(shares.mean(1), ddof=1) / np.sqrt(len(shares))) if share_freedom else 0.0
    spreads = [
        (over_runs.error(per_token_runs), over_runs.freedom),
        (over_runs.error(per_row_runs), over_runs.freedom),
        (share_error, share_freedom),
    ]
    draws = [
        row_errors + statistics.run_draws(*spread, draws=compare.bootstrap, seed=seed)
        for row_errors, spread in zip(row_draws, spreads, strict=True)
    ]
    per_token, per_row, share = (
        statistics.estimate(float(value), float(error), sampled, groups=groups, run_se=run_se, freedom=freedom)
        for value, error, sampled, (run_se, freedom) in zip(values, errors, draws, spreads, strict=True)
    )

    # With several runs the larger p counts: over rows alone, or with the noise of the runs.
    p_rows = statistics.sign_flip(numerators[0], draws=compare.permutations, seed=seed)
    p = max(p_rows, statistics.two_sided(float(values[0]), draws[0])) if over_runs.freedom else p_rows
    tokens = int(losses.tokens.sum())
    return Difference(per_token, per_row, _within_one(share, groups), p, len(rows), groups, tokens), p_rows


def _improved(losses: HeldoutLosses, arm: str, against: str) -> Floats:
    """Which rows `arm` improves on, float64 (pairs of runs, rows): 1 improved, 0.5 equal, 0 not.

    Runs of one seed are paired; every run meets the base. Without a shared seed the first runs are paired.
    """
    if against == BASE:
        pairs = [(run, 0) for run in range(len(losses.seeds[arm]))]
    else:
        seeds = losses.seeds[arm], losses.seeds[against]
        pairs = [(seeds[0].index(one), seeds[1].index(one)) for one in seeds[0] if one in seeds[1]] or [(0, 0)]
    changes = np.stack([losses.nll[arm][first] - losses.nll[against][second] for first, second in pairs])
    return np.where(changes == 0, 0.5, changes < 0).astype(np.float64)


def strata_of(losses: HeldoutLosses, arm: str, against: str, compare: Compare, *, seed: int) -> Iterator[Stratum]:
    """The difference `arm` − `against` for every value of every column of STRATUM_COLUMNS that the losses have.

    Topics with fewer than 20 rows are left out.

    Args:
        losses: the losses of all arms.
        arm, against: names of two arms.
        compare: the numbers of bootstrap draws and of permutations.
        seed: seed of all random numbers.
    """
    for column in (name for name in STRATUM_COLUMNS if name in losses.strata.columns):
        values = losses.strata[column]
        if column == "topic":
            counts = values.value_counts()
            too_small = counts.filter(pl.col("count") < _FEWEST_ROWS_OF_TOPIC)["topic"]
            values = values.set(values.is_in(too_small.implode()), None)
        for value in values.unique().drop_nulls().sort().to_list():
            part = losses.select((values == value).fill_null(value=False).to_numpy().astype(np.bool_))
            yield Stratum(column, str(value), paired_difference(part, arm, against, compare, seed=seed)[0])


def _within_one(share: Estimate, groups: int) -> Estimate:
    """A share's interval ends at 0 and 1, and the minimum detectable effect says nothing about it.

    Where every row improved, or none, there is nothing to resample: the interval is the exact one of as many groups.
    """
    if share.low is None or share.high is None:
        return share
    if share.value in (0.0, 1.0):
        low, high = clopper_pearson(round(share.value * groups), groups, confidence=1 - statistics.LEVEL)
        return Estimate(share.value, low, high, None, None)
    return Estimate(share.value, max(0.0, share.low), min(1.0, share.high), share.se, None)
