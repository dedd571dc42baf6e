# ruff: noqa: E402 - the path comes first
"""Does a verdict say the same on other hardware? A run's arms, trained and compared anew in several environments.

    python tests/benchmarks/same_words.py [RUN] [--folder runs/same_words]

RUN (default: runs/demo) must be curated. In each environment `siftune train` and `siftune compare` work on a copy of it
without its trainings: with two threads and with one, which changes the order of float sums, and with PyTorch's kernels
for processors without AVX2 (`ATEN_CPU_CAPABILITY=default`, oneDNN held to SSE 4.1). MKL, which multiplies matrices in
float32, chooses its code by the processor all the same: another machine can differ by more. Digits may differ, words
may not: where one environment says "better" or "worse", the interval of no other may exclude that direction. Exit code
1 where one does. What is trained stays in the folder; a second call goes on.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from siftune.curation.run.folder import RunFolder
from siftune.curation.run.paths import RunPaths
from siftune.training.evaluation.formatting import format_interval
from siftune.training.evaluation.verdict import Comparison, Verdict

ENVIRONMENTS = {
    "two threads, all kernels": {"OMP_NUM_THREADS": "2"},
    "one thread, all kernels": {"OMP_NUM_THREADS": "1"},
    "two threads, kernels without AVX2": {
        "OMP_NUM_THREADS": "2",
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
    },
}


def copy_without_trainings(run: Path, copy: Path) -> None:
    """Copy a curated run and leave out what training and comparison wrote."""
    if copy.exists():
        return
    paths = RunPaths(run)
    written = [run / "training", paths.evaluation_folder, paths.prompts_folder, paths.tasks_folder, paths.sweep_folder]
    written += [paths.verdict_json, paths.verdict_markdown, paths.votes_path, paths.exports_folder]
    names = {path.name for path in written}
    shutil.copytree(run, copy, ignore=lambda folder, _: names if Path(folder) == run else ())


def train_and_compare(run: Path, environment: Mapping[str, str]) -> Verdict:
    """Train and compare by the commands of siftune, in processes of their own."""
    for command in ("train", "compare"):
        siftune = Path(sys.executable).with_name("siftune")
        subprocess.run([siftune, command, str(run)], env=os.environ | environment, check=True)
    verdict = Verdict.read(RunFolder.open(run))
    assert verdict is not None
    return verdict


def contradicts(said: Comparison, other: Comparison) -> bool:
    """Whether `said` calls an arm better or worse and the interval of `other` excludes that direction."""
    interval = other.difference.per_token
    if said.outcome == "better":
        return interval.low is not None and interval.low > 0
    if said.outcome == "worse":
        return interval.high is not None and interval.high < 0
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", default=ROOT / "runs" / "demo")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "same_words")
    options = parser.parse_args()
    comparisons: dict[str, list[Comparison]] = {}
    for name, environment in ENVIRONMENTS.items():
        copy = options.folder / name.replace(",", "").replace(" ", "-")
        copy_without_trainings(options.run.absolute(), copy)
        started = time.monotonic()
        verdict = train_and_compare(copy, environment)
        print(f"{name}: {time.monotonic() - started:.0f} s. {verdict.headline}", flush=True)
        comparisons[name] = [one for one in verdict.comparisons if "base" not in (one.arm, one.against)]

    print("\n| comparison | environment | nats per token | outcome |\n|---|---|---|---|")
    contradictions = 0
    for of_each in zip(*comparisons.values(), strict=True):
        for name, one in zip(comparisons, of_each, strict=True):
            difference = format_interval(one.difference.per_token)
            print(f"| {one.name} | {name} | {difference} | {one.outcome} |")
        contradictions += sum(contradicts(one, other) for one, other in itertools.permutations(of_each, 2))
    print(f"\nOutcomes that the interval of another environment excludes: {contradictions}")
    return int(contradictions > 0)


if __name__ == "__main__":
    sys.exit(main())
