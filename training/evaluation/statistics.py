"""The statistics of a comparison, from arrays alone: paired differences, their intervals and their p values.

Rows that resemble one another are not independent, so all resampling is by groups of similar rows (cluster bootstrap:
Davison & Hinkley, Bootstrap Methods and their Application, 1997, 3.8). A quantity is a ratio of sums over rows, such as
summed loss over tokens; `numerators` and `denominators` hold its sums by group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from siftune.curation.exact_interval import clopper_pearson

Floats = NDArray[np.float64]

#: Intervals hold 1 − LEVEL = 95 %; a p value below LEVEL counts as evidence.
LEVEL = 0.05
#: The probability with which the minimum detectable effect is detected.
POWER = 0.8
#: Below this many groups the bootstrap has too few different samples; Student's t stands in for it.
FEW_GROUPS = 10
_BLOCK = 4_000_000  # weights drawn at a time: 32 MB
_EXACT_GROUPS = 13  # 2**13 sign patterns are fewer than the usual number of draws, so all are tried


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, standard error and minimum detectable effect, all in the unit of the value.

    The minimum detectable effect is the smallest true difference that is detected with 80 % power at the 5 % level. All
    but the value are None where fewer than two groups leave no way to know the error.
    """

    value: float
    low: float | None
    high: float | None
    se: float | None
    minimum_detectable_effect: float | None

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies wholly on one side of zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def group_sums(values: Floats, groups: NDArray[np.int64]) -> Floats:
    """The sums of `values` by group.

    Args:
        values: float64 (…, rows).
        groups: int64 (rows,), the group of each row, numbered from 0 without a gap.

    Returns:
        float64 (…, groups).
    """
    flat = values.reshape(-1, values.shape[-1])
    sums = [np.bincount(groups, weights=row, minlength=int(groups.max()) + 1) for row in flat]
    return np.stack(sums).astype(np.float64).reshape(*values.shape[:-1], -1)


def ratio_error(numerators: Floats, denominators: Floats) -> tuple[Floats, Floats]:
    """The ratio of sums of each quantity, and its linearised standard error.

    The error is that of a ratio estimator over independent groups (Cochran, Sampling Techniques, 3rd ed., 1977, 6.4).

    Args:
        numerators, denominators: float64 (quantities, groups), sums by group.

    Returns:
        Two arrays, float64 (quantities,).
    """
    groups = numerators.shape[1]
    ratio = numerators.sum(1) / denominators.sum(1)
    squares = ((numerators - ratio[:, None] * denominators) ** 2).sum(1)
    return ratio, np.sqrt(squares * groups / max(groups - 1, 1)) / np.abs(denominators.sum(1))


def bootstrap_pivots(numerators: Floats, denominators: Floats, *, draws: int, seed: int) -> Floats:
    """Studentised bootstrap draws of each ratio: (ratio of the draw − observed ratio) / standard error of the draw.

    Groups are drawn with replacement, the same ones for every quantity. The bootstrap-t covers at its nominal level
    where plain percentiles fall short with few groups (Efron & Tibshirani, An Introduction to the Bootstrap,
    1993, 12.5).
    Below `FEW_GROUPS` groups the draws are of Student's t.

    Args:
        numerators, denominators: float64 (quantities, groups), sums by group.
        draws: the number of bootstrap samples.
        seed: seed of the random numbers.

    Returns:
        float64 (quantities, draws), in standard errors.
    """
    groups = numerators.shape[1]
    rng = np.random.default_rng(seed)
    if groups < FEW_GROUPS:
        return np.tile(rng.standard_t(max(groups - 1, 1), draws), (len(numerators), 1))
    ratio, _ = ratio_error(numerators, denominators)
    # Centred numerators keep the sums of squares below free of cancellation.
    centred = numerators - ratio[:, None] * denominators
    columns = np.concatenate([centred, denominators, centred**2, centred * denominators, denominators**2]).T
    pivots = np.empty((len(numerators), draws))
    step = max(1, _BLOCK // groups)
    for start in range(0, draws, step):
        weights = _bootstrap_counts(rng, min(step, draws - start), groups)
        c, b, cc, cb, bb = np.split((weights @ columns).T, 5)
        shift = c / b
        squares = np.maximum(cc - 2 * shift * cb + shift**2 * bb, 0.0)
        error = np.sqrt(squares * groups / (groups - 1)) / np.abs(b)
        pivots[:, start : start + len(weights)] = np.divide(shift, error, out=np.zeros_like(shift), where=error > 0)
    return pivots


def _bootstrap_counts(rng: np.random.Generator, draws: int, groups: int) -> Floats:
    """How often each group is drawn with replacement, float64 (draws, groups): multinomial, made by counting."""
    samples = rng.integers(groups, size=(draws, groups), dtype=np.uint32) + np.arange(draws)[:, None] * groups
    return np.bincount(samples.ravel(), minlength=draws * groups).reshape(draws, groups).astype(np.float64)


def run_draws(error: float, freedom: int, *, draws: int, seed: int) -> Floats:
    """Draws of what other training runs would have changed: Student's t, since two or three runs cannot be resampled.

    Added to the draws over rows this is the Behrens-Fisher distribution: slightly wide, never narrow.

    Args:
        error: the standard error over training runs.
        freedom: its degrees of freedom; 0 where nothing is known of the noise.
        draws: the number of draws.
        seed: of the random numbers.

    Returns:
        float64 (draws,), in the unit of `error`; zeros where nothing is known of the noise.
    """
    if not freedom:
        return np.zeros(draws)
    return error * np.random.default_rng([seed, 1]).standard_t(freedom, draws)


def estimate(
    value: float, se: float, errors: Floats, *, groups: int, run_se: float = 0.0, freedom: int = 0
) -> Estimate:
    """An estimate with its 95 % interval and minimum detectable effect.

    The interval is basic: value minus the quantiles of the errors. The standard error joins that over rows and that
    over training runs. The minimum detectable effect is (t(1 − level / 2) + t(power)) times the standard error (Bloom,
    Evaluation Review 1995), with the degrees of freedom of Satterthwaite (Biometrics Bulletin 1946).

    Args:
        value: the estimate.
        se: its standard error over groups of rows.
        errors: float64 (draws,), draws of estimate minus truth.
        groups: the number of groups of similar rows.
        run_se: its standard error over training runs.
        freedom: degrees of freedom of `run_se`; 0 where there is none.
    """
    from scipy import stats

    if groups < 2:
        return Estimate(value, None, None, None, None)
    above, below = np.quantile(errors, (LEVEL / 2, 1 - LEVEL / 2))
    total = float(np.hypot(se, run_se))
    spread = se**4 / (groups - 1) + (run_se**4 / freedom if freedom else 0.0)
    df = total**4 / spread if spread else groups - 1
    reach = stats.t.ppf(1 - LEVEL / 2, df) + stats.t.ppf(POWER, df)
    return Estimate(value, float(value - below), float(value - above), total, float(reach * total))


def ratio_estimate(numerators: Floats, denominators: Floats, *, draws: int, seed: int) -> Estimate:
    """One ratio of sums with its studentised cluster-bootstrap interval.

    Args:
        numerators, denominators: float64 (groups,), sums by group.
        draws: the number of bootstrap samples.
        seed: of the random numbers.
    """
    top, bottom = numerators[None], denominators[None]
    ratio, error = ratio_error(top, bottom)
    errors = error[0] * bootstrap_pivots(top, bottom, draws=draws, seed=seed)[0]
    return estimate(float(ratio[0]), float(error[0]), errors, groups=len(numerators))


def sign_flip(differences: Floats, *, draws: int, seed: int) -> float:
    """The two-sided p of a sum of group differences under random signs: Fisher's randomisation test (The Design of
    Experiments, 1935, 21).

    Exact when the sign of a group's difference is a coin toss under the null. Every pattern of signs is tried when
    there are few groups; else p is (1 + hits) / (1 + draws), which is never 0 (Phipson & Smyth 2010, arXiv 1603.05766).

    Args:
        differences: float64 (groups,), summed differences.
        draws: the number of random patterns.
        seed: of the random numbers.
    """
    groups = len(differences)
    bound = abs(differences.sum()) * (1 - 1e-12)  # rounding must not make the observed pattern miss itself
    if groups <= _EXACT_GROUPS:
        patterns = 1.0 - 2.0 * ((np.arange(2**groups)[:, None] >> np.arange(groups)) & 1)
        return float(np.mean(np.abs(patterns @ differences) >= bound))
    rng = np.random.default_rng([seed, 2])
    hits, step = 0, max(1, _BLOCK // groups)
    for start in range(0, draws, step):
        signs = rng.integers(0, 2, size=(min(step, draws - start), groups), dtype=np.int8)
        hits += int(np.count_nonzero(np.abs((2.0 * signs - 1.0) @ differences) >= bound))
    return (1 + hits) / (1 + draws)


def two_sided(value: float, errors: Floats) -> float:
    """The two-sided p of `value` from draws of estimate minus truth, float64 (draws,)."""
    tail = min(np.count_nonzero(errors >= value), np.count_nonzero(errors <= value))
    return float(min(1.0, 2 * (1 + tail) / (1 + len(errors))))


def holm(ps: Sequence[float]) -> list[float]:
    """Step-down adjusted p values, in the given order (Holm, Scandinavian Journal of Statistics 1979)."""
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, index in enumerate(np.argsort(ps, kind="stable")):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = largest
    return adjusted


@dataclass(frozen=True)
class VoteResult:
    """Votes for one side among those that chose a side, with the exact 95 % interval of its share and the exact p.

    `needed`: decisive votes still to come for 80 % power at the 5 % level if the observed share is the true one; None
    if the votes are even. `share` is None where nobody chose a side.
    """

    wins: int
    losses: int
    ties: int
    share: float | None
    low: float
    high: float
    p: float
    needed: int | None


def vote_result(wins: int, losses: int, ties: int = 0) -> VoteResult:
    """The exact interval (Clopper & Pearson, Biometrika 1934) and sign test of blind votes; ties count for neither."""
    from scipy import stats

    decisive = wins + losses
    if decisive == 0:
        return VoteResult(wins, losses, ties, None, 0.0, 1.0, 1.0, None)
    low, high = clopper_pearson(wins, decisive, confidence=1 - LEVEL)
    required = votes_for_power(wins / decisive)
    return VoteResult(
        wins=wins,
        losses=losses,
        ties=ties,
        share=wins / decisive,
        low=low,
        high=high,
        p=float(stats.binomtest(wins, decisive).pvalue),
        needed=None if required is None else max(0, required - decisive),
    )


def votes_for_power(share: float) -> int | None:
    """Decisive votes that detect a true `share` with 80 % power at the 5 % level; None at an even split.

    Normal approximation to the one-sample test of a proportion (Fleiss, Statistical Methods for Rates and Proportions,
    3rd ed., 2003, 2.6).
    """
    from scipy import stats

    gap = abs(share - 0.5)
    if gap == 0:
        return None
    reach = stats.norm.ppf(1 - LEVEL / 2) * 0.5 + stats.norm.ppf(POWER) * np.sqrt(max(share * (1 - share), 0.0))
    # Fewer than six votes cannot reach p < 0.05 even when all agree.
    return max(6, int(np.ceil((reach / gap) ** 2)))
