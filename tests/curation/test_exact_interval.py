"""The exact interval of a share against scipy's."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from siftune.curation.exact_interval import clopper_pearson


@pytest.mark.parametrize(("successes", "trials"), [(0, 7), (7, 7), (3, 10), (36, 36), (90, 100)])
@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_the_interval_is_scipys_exact_one(successes: int, trials: int, confidence: float) -> None:
    expected = binomtest(successes, trials).proportion_ci(confidence, method="exact")
    assert clopper_pearson(successes, trials, confidence=confidence) == pytest.approx((expected.low, expected.high))


def test_without_trials_nothing_is_excluded() -> None:
    assert clopper_pearson(0, 0) == (0.0, 1.0)
