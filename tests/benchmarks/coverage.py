# ruff: noqa: E402 - the path comes first
"""How often the 95 % interval of a difference of arms holds the true difference, over simulated comparisons.

    python tests/benchmarks/coverage.py [--simulations 1000]

Rows come in groups of uneven size and are skewed; every training run adds noise of its own, by its standard
deviation in nats per token. The interval is the verdict's, of the rows and the runs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np

from siftune.curation.exact_interval import clopper_pearson
from siftune.curation.recipe.training_sections import Compare
from siftune.training.evaluation.differences import paired_difference
from tests.training.evaluation.test_verdict import simulated

EFFECT = 0.05
RUN_SDS = (0.0, 0.01, 0.04)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1000)
    options = parser.parse_args()
    compare = Compare(bootstrap=1000, permutations=1000)
    print(
        "| seeds | standard deviation of a run | simulations | coverage (95 % interval) |\n|---|---|---|---|",
        flush=True,
    )
    for runs in (3, 5):
        for spread in RUN_SDS:
            rng = np.random.default_rng(runs)
            covered = 0
            for number in range(options.simulations):
                losses = simulated(rng, effect=EFFECT, runs=runs, run_spread=spread)
                estimate = paired_difference(losses, "curated", "raw", compare, seed=number)[0].per_token
                assert estimate.low is not None
                assert estimate.high is not None
                covered += estimate.low <= EFFECT <= estimate.high
            low, high = clopper_pearson(covered, options.simulations)
            share = f"{covered / options.simulations:.3f} ({low:.3f} to {high:.3f})"
            print(f"| {runs} | {spread:g} | {options.simulations} | {share} |", flush=True)


if __name__ == "__main__":
    main()
