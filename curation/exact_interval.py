"""The exact interval of a share: of labelled pairs that are the same, of votes for one arm."""

from __future__ import annotations


def clopper_pearson(successes: int, trials: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """The Clopper-Pearson interval of the share behind `successes` out of `trials`, as (low, high) in [0, 1].

    It never covers the true share less often than `confidence` (Clopper and Pearson, Biometrika 26, 1934). Without
    trials it is (0, 1).
    """
    from scipy.special import betaincinv  # the quantile of a beta distribution; scipy.stats takes a second to import

    tail = (1 - confidence) / 2
    low = float(betaincinv(successes, trials - successes + 1, tail)) if successes else 0.0
    high = float(betaincinv(successes + 1, trials - successes, 1 - tail)) if successes < trials else 1.0
    return low, high
