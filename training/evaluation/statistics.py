"""The numbers behind a verdict: paired differences, their intervals and their p, from arrays alone.

Rows that resemble one another are not independent, so everything is resampled by similarity group. A quantity is a
ratio of sums over rows (summed loss over tokens, summed row differences over rows); groups give `top` and `bottom`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVEL = 0.05
POWER = 0.8
#: Below this many groups the bootstrap has too few different samples; Student's t stands in for it.
FEW_GROUPS = 10
_BLOCK = 4_000_000  # weights drawn at a time: 32 MB
_EXACT_GROUPS = 13  # 2**13 sign patterns are fewer than the usual number of draws, so all are tried


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval. `detectable`: the smallest true difference found with 80 % power at 5 %.

    `low`, `high`, `se` and `detectable` are None where fewer than two groups leave no way to tell.
    """

    value: float
    low: float | None
    high: float | None
    se: float | None
    detectable: float | None

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies wholly on one side of zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def group_sums(values: Floats, groups: NDArray[np.int64]) -> Floats:
    """Sums of `values` (…, rows) by group (…, groups); `groups` (rows) numbers them from 0 without a gap."""
    flat = values.reshape(-1, values.shape[-1])
    sums = [np.bincount(groups, weights=row, minlength=int(groups.max()) + 1) for row in flat]
    return np.stack(sums).astype(np.float64).reshape(*values.shape[:-1], -1)


def ratio_error(top: Floats, bottom: Floats) -> tuple[Floats, Floats]:
    """The ratio of sums of each quantity and its linearised standard error.

    Args:
        top, bottom: (quantities, groups).

    The error is that of a ratio estimator over independent groups (Cochran, Sampling Techniques, 3rd ed., 6.4).
    """
    count = top.shape[1]
    ratio = top.sum(1) / bottom.sum(1)
    spread = ((top - ratio[:, None] * bottom) ** 2).sum(1)
    return ratio, np.sqrt(spread * count / max(count - 1, 1)) / np.abs(bottom.sum(1))


def pivots(top: Floats, bottom: Floats, *, draws: int, seed: int) -> Floats:
    """Studentised bootstrap draws (quantities, draws) of each ratio: (drawn − observed) / drawn standard error.

    Groups are drawn with replacement, the same ones for every quantity. The bootstrap-t covers at its nominal level
    where plain percentiles fall short with few groups (Efron & Tibshirani, An Introduction to the Bootstrap, 12.5).
    """
    count = top.shape[1]
    rng = np.random.default_rng(seed)
    if count < FEW_GROUPS:
        return np.tile(rng.standard_t(max(count - 1, 1), draws), (len(top), 1))
    ratio, _ = ratio_error(top, bottom)
    # Centred tops keep the sums of squares below free of cancellation.
    centred = top - ratio[:, None] * bottom
    columns = np.concatenate([centred, bottom, centred**2, centred * bottom, bottom**2]).T
    drawn = np.empty((len(top), draws))
    step = max(1, _BLOCK // count)
    for start in range(0, draws, step):
        weights = _times_drawn(rng, min(step, draws - start), count)
        c, b, cc, cb, bb = np.split((weights @ columns).T, 5)
        shift = c / b
        spread = np.maximum(cc - 2 * shift * cb + shift**2 * bb, 0.0)
        error = np.sqrt(spread * count / (count - 1)) / np.abs(b)
        drawn[:, start : start + len(weights)] = np.divide(shift, error, out=np.zeros_like(shift), where=error > 0)
    return drawn


def _times_drawn(rng: np.random.Generator, draws: int, count: int) -> Floats:
    """How often each of `count` groups is drawn with replacement, (draws, count): multinomial, made by counting."""
    chosen = rng.integers(count, size=(draws, count), dtype=np.uint32) + np.arange(draws)[:, None] * count
    return np.bincount(chosen.ravel(), minlength=draws * count).reshape(draws, count).astype(np.float64)


def run_error(first: Floats, second: Floats) -> tuple[float, float]:
    """Standard error and degrees of freedom of a difference of means over training runs; (0, inf) with single runs.

    Args:
        first, second: the loss of each run. Runs of the same seed share their initial weights and order, so runs are
            paired when both arms have the same number of them.
    """
    if len(first) == len(second) and len(first) > 1:
        return float(np.std(first - second, ddof=1) / np.sqrt(len(first))), len(first) - 1.0
    parts = [(np.var(x, ddof=1) / len(x), len(x) - 1) for x in (first, second) if len(x) > 1]
    total = sum(part for part, _ in parts)
    if not total:
        return 0.0, np.inf
    freedom = total**2 / sum(part**2 / df for part, df in parts)  # Welch–Satterthwaite
    return float(np.sqrt(total)), float(freedom)


def run_draws(error: float, freedom: float, *, draws: int, seed: int) -> Floats:
    """Draws of what other training runs would have changed: Student's t, since two or three runs cannot be resampled.

    Added to the draws over rows this is the Behrens–Fisher distribution: slightly wide, never narrow.
    """
    if error == 0 or np.isinf(freedom):
        return np.zeros(draws)
    return error * np.random.default_rng([seed, 1]).standard_t(freedom, draws)


def estimate(value: float, se: float, errors: Floats, *, groups: int, freedom: float = np.inf) -> Estimate:
    """The interval from `errors`, draws of (estimate − truth), and the minimum detectable effect."""
    from scipy import stats

    if groups < 2:
        return Estimate(value, None, None, None, None)
    above, below = np.quantile(errors, (LEVEL / 2, 1 - LEVEL / 2))
    df = min(groups - 1, freedom)
    reach = stats.t.ppf(1 - LEVEL / 2, df) + stats.t.ppf(POWER, df)
    return Estimate(value, float(value - below), float(value - above), se, float(reach * se))


def sign_flip(differences: Floats, *, draws: int, seed: int) -> float:
    """Two-sided p of a sum of group differences under random signs; every pattern is tried when they are few.

    Exact when the sign of a group's difference is a coin toss under the null; (1 + hits) / (1 + draws) otherwise
    (Phipson & Smyth 2010, arXiv 1603.05766, so that p is never 0).
    """
    count = len(differences)
    bound = abs(differences.sum()) * (1 - 1e-12)  # rounding must not make the observed pattern miss itself
    if count <= _EXACT_GROUPS:
        patterns = 1.0 - 2.0 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)
        return float(np.mean(np.abs(patterns @ differences) >= bound))
    rng = np.random.default_rng([seed, 2])
    hits, step = 0, max(1, _BLOCK // count)
    for start in range(0, draws, step):
        signs = rng.integers(0, 2, size=(min(step, draws - start), count), dtype=np.int8)
        hits += int(np.count_nonzero(np.abs((2.0 * signs - 1.0) @ differences) >= bound))
    return (1 + hits) / (1 + draws)


def two_sided(value: float, errors: Floats) -> float:
    """Two-sided p of `value` from draws of (estimate − truth)."""
    tail = min(np.count_nonzero(errors >= value), np.count_nonzero(errors <= value))
    return float(min(1.0, 2 * (1 + tail) / (1 + len(errors))))


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values, in the given order (Holm 1979)."""
    adjusted, worst = [0.0] * len(ps), 0.0
    for rank, place in enumerate(np.argsort(ps, kind="stable")):
        worst = max(worst, min(1.0, (len(ps) - rank) * ps[place]))
        adjusted[place] = worst
    return adjusted


@dataclass(frozen=True)
class VoteResult:
    """Votes for one side among those that chose a side, with the exact interval and p.

    `needed`: decisive votes still to come for 80 % power at 5 % if the share seen is the true one; None if it is even.
    """

    wins: int
    losses: int
    ties: int
    share: float | None
    low: float
    high: float
    p: float
    needed: int | None


def votes(wins: int, losses: int, ties: int = 0) -> VoteResult:
    """Clopper–Pearson 95 % interval and exact sign test of blind votes; ties are counted and left out of both."""
    from scipy import stats

    total = wins + losses
    if total == 0:
        return VoteResult(wins, losses, ties, None, 0.0, 1.0, 1.0, None)
    test = stats.binomtest(wins, total)
    interval = test.proportion_ci(1 - LEVEL, method="exact")
    wanted = votes_for_power(wins / total)
    needed = None if wanted is None else max(0, wanted - total)
    return VoteResult(
        wins, losses, ties, wins / total, float(interval.low), float(interval.high), float(test.pvalue), needed
    )


def votes_for_power(share: float) -> int | None:
    """Decisive votes that find a true `share` with 80 % power at 5 % (normal approximation); None at an even split."""
    from scipy import stats

    gap = abs(share - 0.5)
    if gap == 0:
        return None
    reach = stats.norm.ppf(1 - LEVEL / 2) * 0.5 + stats.norm.ppf(POWER) * np.sqrt(max(share * (1 - share), 0.0))
    # Fewer than six votes cannot reach p < 0.05 even when all agree.
    return max(6, int(np.ceil((reach / gap) ** 2)))
