"""What every test may use: the real data when it lies beside the checkout, and a Hypothesis profile without clocks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.real_data import DATA

settings.register_profile(
    "siftune",
    deadline=None,
    max_examples=50,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("siftune")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real instruction sets, benchmarks and labelled pairs beside the checkout."""
    if not DATA.is_dir():
        pytest.skip("the real data sets are not on this machine (expected in ../shared/data)")
    return DATA


@pytest.fixture(scope="session", autouse=True)
def fork_workers() -> Iterator[None]:
    """Workers of training and evaluation begin as forks where the system has them; see `forked_workers`."""
    with pytest.MonkeyPatch.context() as patch:
        if sys.platform == "linux":
            from siftune.training import worker
            from tests.training import forked_workers

            patch.setattr(worker, "start", forked_workers.start)
        yield
