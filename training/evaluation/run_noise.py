"""The noise of training runs: how far the difference of two arms would move if they were trained with other seeds.

The loss of a run is taken to be an effect of its arm, plus an effect of its seed (runs of one seed share their initial
weights and their order of rows), plus an independent error with one variance for all arms that were trained on one
budget: the additive model of a randomised block design with seeds as blocks (Montgomery, Design and Analysis of
Experiments, 8th ed., 2012, 4.1), fitted by least squares so that runs may be missing (Searle, Linear Models, 1971,
5.3). The variance is the residual mean square, so every trained arm adds to what is known of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from siftune.training.arm_names import BASE
from siftune.training.evaluation.statistics import Floats


@dataclass(frozen=True)
class RunNoise:
    """The standard deviation of one training run's error, in nats per token, over all arms.

    sd is None where no two arms share two seeds; freedom are its degrees of freedom, `runs` of `arms` its data.
    """

    sd: float | None
    freedom: int
    runs: int
    arms: int


@dataclass(frozen=True)
class Contrast:
    """The difference of two arms as a weighted sum over the runs of `arms`.

    arms: names in the order of `weights` and of the rows of `design`. weights: by arm, float64 (runs,). design:
    float64 (runs of all arms, columns). freedom: residual degrees of freedom, 0 where the noise cannot be known.
    """

    arms: tuple[str, ...]
    weights: dict[str, Floats]
    design: Floats
    freedom: int

    def apply(self, values: Mapping[str, Floats]) -> Floats:
        """The weighted sum over runs.

        Args:
            values: by arm, float64 (runs, …); of the base, which has one run, the only one counts.
        """
        total = sum(np.tensordot(self.weights[arm], values[arm], axes=1) for arm in self.arms)
        return np.asarray(total if BASE not in self.weights else total - values[BASE][0], np.float64)

    def error(self, losses: Mapping[str, Floats]) -> float:
        """The standard error of `apply(losses)` over training runs; 0 where `freedom` is.

        Args:
            losses: by arm, float64 (runs,).
        """
        weights = np.concatenate([self.weights[arm] for arm in self.arms])
        observed = np.concatenate([losses[arm] for arm in self.arms])
        return _residual_sd(self.design, observed, self.freedom) * float(np.linalg.norm(weights))


def contrast(seeds: Mapping[str, Sequence[int]], arm: str, against: str) -> Contrast:
    """The best linear unbiased estimate of `arm` − `against`.

    With the same seeds for all arms it is the mean of the paired differences. Where no chain of shared seeds joins the
    two arms, it is the difference of their means, and the effects of the seeds are part of the errors. The untrained
    base has no noise: against it the runs of `arm` are averaged.

    Args:
        seeds: by arm, the seed of each run.
        arm, against: names of two arms; `against` may be the base.
    """
    if against == BASE:
        runs = len(seeds[arm])
        weights = {arm: np.full(runs, 1 / runs), BASE: np.array([-1.0])}
        return Contrast((arm,), weights, np.ones((runs, 1)), runs - 1)
    arms = tuple(name for name in seeds if name != BASE)
    by_arm, by_seed = _indicators(arms, seeds)
    sign = np.array([(name == arm) - (name == against) for name in arms], np.float64)
    design = np.concatenate([by_arm, by_seed], axis=1)
    contrast = np.concatenate([sign, np.zeros(by_seed.shape[1])])
    flat = np.linalg.pinv(design).T @ contrast
    if not np.allclose(design.T @ flat, contrast):  # no chain of seeds joins the arms
        design = by_arm
        flat = np.linalg.pinv(design).T @ sign
    parts = np.split(flat, np.cumsum([len(seeds[name]) for name in arms])[:-1])
    return Contrast(arms, dict(zip(arms, parts, strict=True)), design, _freedom(design))


def run_noise(losses: Mapping[str, Floats], seeds: Mapping[str, Sequence[int]]) -> RunNoise:
    """The noise of one training run, pooled over all trained arms.

    Args:
        losses: by arm, float64 (runs,), in nats per token.
        seeds: by arm, the seed of each run.
    """
    arms = tuple(name for name in seeds if name != BASE)
    design = np.concatenate(_indicators(arms, seeds), axis=1)
    freedom = _freedom(design)
    sd = _residual_sd(design, np.concatenate([losses[arm] for arm in arms]), freedom) if freedom else None
    return RunNoise(sd, freedom, len(design), len(arms))


def _indicators(arms: Sequence[str], seeds: Mapping[str, Sequence[int]]) -> tuple[Floats, Floats]:
    """Which arm and which seed each run is of: float64 (runs, arms) and (runs, seeds)."""
    run_arms = np.array([arm for arm in arms for _ in seeds[arm]])
    run_seeds = np.array([seed for arm in arms for seed in seeds[arm]])
    return (run_arms[:, None] == np.array(arms)).astype(np.float64), (
        run_seeds[:, None] == np.unique(run_seeds)
    ).astype(np.float64)


def _freedom(design: Floats) -> int:
    return len(design) - int(np.linalg.matrix_rank(design))


def _residual_sd(design: Floats, observed: Floats, freedom: int) -> float:
    """The square root of the residual mean square; 0 without degrees of freedom."""
    if not freedom:
        return 0.0
    residuals = observed - design @ (np.linalg.pinv(design) @ observed)
    return float(np.sqrt(residuals @ residuals / freedom))
