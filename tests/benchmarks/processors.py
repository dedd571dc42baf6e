# ruff: noqa: E402 - the path comes first
"""Which decisions differ on another processor? The demo's rows, curated with the kernels of several processors.

    python tests/benchmarks/processors.py [--rows 3000] [--folder runs/processors]
    SIFTUNE_PORTABLE=1 qemu-x86_64 -cpu Haswell python tests/benchmarks/processors.py --embed

Each time everything is computed anew, with a cache of its own: as this processor does it; with the kernels for
processors without AVX2 (PyTorch, oneDNN, OpenBLAS, NumPy; MKL chooses by the processor all the same); with embeddings
in bfloat16, which are taken where it is native; and with SIFTUNE_PORTABLE=1, by one thread and by eight. A decision is
a row of the ledger; it differs where the first environment has none of its id, stage, action, reason and witness.
Printed with it: the largest difference of a score between equal decisions, and a hash of ledger and rows. Exit code 1
where two portable ones differ.

`--embed` prints a hash of the embeddings of twelve sentences, which an emulated processor makes in minutes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import siftune  # noqa: I001 - before numpy, for portable arithmetic

import polars as pl
import xxhash
import yaml

from siftune.curation.embeddings.store import load
from siftune.curation.portable_arithmetic import SWITCH
from siftune.data import python_docs

OLD = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "OPENBLAS_CORETYPE": "Nehalem"}
OLD["NPY_DISABLE_CPU_FEATURES"] = "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"
DECISION = ["id", "stage", "action", "reason", "witness"]


class Environment(NamedTuple):
    """Variables of a process, and whether its embeddings are made in bfloat16."""

    variables: dict[str, str]
    bf16: bool = False


ENVIRONMENTS = {
    "this processor": Environment({}),
    "kernels without AVX2": Environment(OLD),
    "embeddings in bfloat16": Environment({}, bf16=True),
    "portable, one thread": Environment({SWITCH: "1", "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}),
    "portable, eight threads": Environment({SWITCH: "1", "OMP_NUM_THREADS": "8", "POLARS_MAX_THREADS": "8"}),
}


def curate_in(environment: Environment, recipe: dict[str, object], folder: Path) -> float:
    """Curate in a process of its own into `folder`, everything anew; returns the seconds it took."""
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    command = [sys.executable, __file__, "--curate", str(folder / "recipe.yaml")]
    command += ["--bf16"] if environment.bf16 else []
    variables = os.environ | environment.variables | {"SIFTUNE_CACHE": str(folder / "cache")}
    started = time.monotonic()
    subprocess.run(command, env=variables, check=True, stderr=subprocess.DEVNULL)
    return time.monotonic() - started


def ledger_of(folder: Path) -> pl.DataFrame:
    """The ledger of a run: its decisions with their scores."""
    return pl.read_parquet(folder / "run" / "ledger.parquet").select(*DECISION, "score")


def result_hash(folder: Path) -> str:
    """A hash of ledger and rows as they are read back, scores to the last digit."""
    digest = xxhash.xxh3_128()
    for name in ("ledger.parquet", "rows.parquet"):
        digest.update(pl.read_parquet(folder / "run" / name).write_ndjson().encode())
    return digest.hexdigest()


def differences(first: pl.DataFrame, other: pl.DataFrame) -> tuple[int, str, float]:
    """Decisions that only one of two ledgers has, by stage in words, and the largest difference of a common score."""
    apart = pl.concat(
        [
            first.join(other, on=DECISION, how="anti", nulls_equal=True),
            other.join(first, on=DECISION, how="anti", nulls_equal=True),
        ]
    )
    by_stage = apart.group_by("stage").len().sort("stage").rows()
    both = first.join(other, on=DECISION, nulls_equal=True)
    largest = both.select((pl.col("score") - pl.col("score_right")).abs().max()).item()
    return apart["id"].n_unique(), ", ".join(f"{stage} {count}" for stage, count in by_stage), float(largest or 0)


def embeddings_hash() -> str:
    """A hash of the embeddings of sentences of several lengths, all their bits."""
    encoder = load("auto")
    assert encoder is not None
    sentences = [" ".join(f"The row number {row} is kept." for row in range(count)) for count in range(1, 13)]
    return xxhash.xxh3_128_hexdigest(encoder.encode(sentences).tobytes())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=3_000)
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "processors")
    parser.add_argument(
        "--embed", action="store_true", help="embed twelve sentences, print a hash, and do nothing else"
    )
    parser.add_argument("--curate", metavar="RECIPE", help="curate by a recipe in this process, and nothing else")
    parser.add_argument("--bf16", action="store_true", help="with --curate: embeddings in bfloat16")
    options = parser.parse_args()
    if options.embed:
        print(embeddings_hash())
        return 0
    if options.curate:
        if options.bf16:
            from siftune.curation.embeddings import sentence_transformer

            sentence_transformer._precision = lambda: "bf16"
        siftune.curate(options.curate)
        return 0

    folder = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    python_docs.build(folder / "python_docs.jsonl")
    recipe = yaml.safe_load((ROOT / "data" / "demo.yaml").read_text(encoding="utf-8"))
    recipe |= {"run": "run", "training": None}
    recipe["sources"] = [{"path": str(folder / "python_docs.jsonl"), "format": "alpaca", "limit": options.rows}]
    recipe["contamination"]["references"][0]["path"] = str(ROOT / "data" / "quiz.jsonl")
    recipe["splits"]["test"] = options.rows // 20

    print(f"{options.rows:,} rows\n\n| environment | seconds | rows decided otherwise | decisions | score | hash |")
    print("|---|---:|---:|---|---:|---|")
    portable = set()
    first = None
    for name, environment in ENVIRONMENTS.items():
        of_one = folder / f"{options.rows}-{name.replace(', ', '-').replace(' ', '-')}"
        seconds = curate_in(environment, recipe, of_one) if not (of_one / "run" / "ledger.parquet").is_file() else None
        ledger, result = ledger_of(of_one), result_hash(of_one)
        first = ledger if first is None else first
        rows, by_stage, score = differences(first, ledger)
        took = "" if seconds is None else f"{seconds:.0f}"
        print(f"| {name} | {took} | {rows} | {by_stage} | {score:.0e} | {result[:8]} |", flush=True)
        if SWITCH in environment.variables:
            portable.add(result)
    print(f"\nDifferent results with {SWITCH}=1: {len(portable)}")
    return int(len(portable) > 1)


if __name__ == "__main__":
    sys.exit(main())
