# ruff: noqa: E402 - the path comes first
"""Does a second pass over a curated set drop anything? Every stage, with the encoder, on the real sets.

    python tests/benchmarks/second_pass.py [SET ...] [--folder runs/second_pass]

Each set is curated by the default recipe with the default encoder, against HumanEval, MBPP, GSM8K and MMLU, with fifty
test rows and balanced lengths; the curated folder is then curated by the same recipe. A pass that is done is not
repeated. Exit code 1 where the second pass drops a row.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import polars as pl
import yaml

from siftune.curation.pipeline import curate
from siftune.curation.run.folder import RunFolder
from tests.real_data import DATA

SETS = {
    "rasbt_alpaca": ".json",
    "glaive_sharegpt": ".json",
    "hh_chosen_rejected": ".jsonl.gz",
    "self_instruct_5k": ".jsonl",
    "gsm8k_train": ".jsonl.gz",
    "gpteacher_toolformer": ".json.gz",
    "mix": ".jsonl.gz",
    "t0_prompt_completion": ".jsonl.gz",
}
BENCHMARKS = ("humaneval.jsonl", "mbpp.jsonl", "gsm8k_test.jsonl", "mmlu_test.jsonl.gz")


def run_over(source: Path, folder: Path, name: str) -> RunFolder:
    """Curate a source by the recipe of this script; a finished run is opened."""
    document: dict[str, Any] = {
        "sources": [{"path": str(source), "name": "s"}],
        "run": name,
        "contamination": {"references": [{"path": str(DATA / "benchmarks" / file)} for file in BENCHMARKS]},
        "splits": {"test": 50},
        "balance": {},
    }
    recipe = folder / f"{name}.yaml"
    recipe.write_text(yaml.safe_dump(document), encoding="utf-8")
    if (folder / name / "manifest.json").is_file() and RunFolder.open(folder / name).manifest.status == "curated":
        return RunFolder.open(folder / name)
    return curate(recipe)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"default: {', '.join(SETS)}")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "second_pass")
    options = parser.parse_args()
    names = options.sets or list(SETS)
    for name in names:
        if name not in SETS:
            parser.error(f"there is no set {name!r}; the sets are {', '.join(SETS)}")
    print("| set | rows | kept by the first pass | dropped by the second |\n|---|---:|---:|---|")
    dropped = 0
    for name in names:
        folder = options.folder.absolute() / name
        folder.mkdir(parents=True, exist_ok=True)
        first = run_over(DATA / "instructions" / f"{name}{SETS[name]}", folder, "first")
        second = run_over(first.curated_folder, folder, "second")
        by_stage = Counter(second.ledger().filter(pl.col("action").is_in(["drop", "quarantine"]))["stage"])
        counts = first.manifest.counts
        assert counts is not None
        drops = ", ".join(f"{stage} {count}" for stage, count in by_stage.items()) or "none"
        print(f"| {name} | {counts.input} | {counts.kept} | {drops} |", flush=True)
        dropped += by_stage.total()
    return int(dropped > 0)


if __name__ == "__main__":
    sys.exit(main())
