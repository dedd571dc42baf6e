# ruff: noqa: E402 - the path comes first
"""How long does a whole curation take, stage by stage, and how does it grow? From JSON Lines to the curated set.

    python tests/benchmarks/million.py [--rows 1000000] [--sizes 250000 500000 1000000] [--folder runs/million]

Rows are instructions and answers of 20 to 60 words each, cut from the word stream of mix.jsonl.gz with a tenth to six
tenths of the words replaced by others of it; one row in ten copies an earlier one and replaces 3 % of its words. About
480 MB for a million. Curated without an encoder: exact, near, answers, contamination by published rules against six
benchmarks, splits with their certificate, balance. Each size runs in a process of its own; files of a size that is
there are not made again, runs are. Printed: seconds and peak memory of each stage, and the growth from size to size.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np
import polars as pl
import yaml

from siftune.curation.run.folder import RunFolder
from siftune.curation.run.manifest import Manifest
from tests.real_data import DATA, json_rows

BENCHMARKS = (
    *("gsm8k_test.jsonl", "math_test.json.gz", "mmlu_test.jsonl.gz", "humaneval.jsonl", "mbpp.jsonl", "ifeval.jsonl"),
)
RULES = ["gpt3-13gram", "tulu3-8gram", "llama3-token-ratio"]
CHUNK = 50_000
COPIES, REPLACED_IN_COPY = 0.1, 0.03


def write_rows(rows: int, path: Path) -> None:
    """The rows as JSON Lines with `instruction` and `output`."""
    mixture = json_rows(DATA / "instructions" / "mix.jsonl.gz")
    texts = pl.Series([f"{row['instruction']} {row['output']}" for row in mixture])
    stream = texts.str.extract_all(r"\w+").explode(empty_as_null=False)
    vocabulary = stream.unique(maintain_order=True)
    ids = stream.replace_strict(vocabulary, pl.int_range(len(vocabulary), eager=True)).to_numpy()
    rng = np.random.default_rng(rows)
    temporary = path.with_suffix(".partial")
    with temporary.open("wb") as file:
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            copied = np.flatnonzero(rng.random(count) < COPIES)
            original = np.arange(count)
            original[copied] = (copied * rng.random(copied.size)).astype(np.int64)
            share = rng.uniform(0.1, 0.6, count)
            sides = {}
            for side in ("instruction", "output"):
                sizes = rng.integers(20, 61, count)
                starts = rng.integers(ids.size - 61, size=count)
                texts_of_chunk = _cut(ids, starts[original], sizes[original])
                seeds = rng.random(ids.size)  # the same replacements for a row and its copies
                row, words = texts_of_chunk
                at = starts[original][row] + _within(row)
                replaced = seeds[at] < share[original][row]
                words = np.where(replaced, ids[(at * 7919) % ids.size], words)
                is_copy = np.isin(row, copied)
                changed = is_copy & (rng.random(words.size) < REPLACED_IN_COPY)
                words[changed] = ids[rng.integers(ids.size, size=int(changed.sum()))]
                spelled = pl.DataFrame({"row": row, "word": vocabulary.gather(words)})
                sides[side] = spelled.group_by("row", maintain_order=True).agg(pl.col("word").str.join(" "))["word"]
            pl.DataFrame(sides).write_ndjson(file)
    temporary.rename(path)


def _cut(ids: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The row and the id of each word of the pieces `ids[start:start + size]`."""
    row = np.repeat(np.arange(len(starts)), sizes)
    return row, ids[starts[row] + _within(row)]


def _within(row: np.ndarray) -> np.ndarray:
    """For ascending row numbers the position of each element in its row."""
    first = np.concatenate([[True], row[1:] != row[:-1]])
    begin = np.flatnonzero(first)
    return np.arange(row.size) - begin[np.cumsum(first) - 1]


def curate(rows: int, folder: Path) -> tuple[Manifest, float]:
    """Curate that many rows in a process of its own; the manifest and the seconds by the clock."""
    source = folder / f"{rows}.jsonl"
    if not source.is_file():
        write_rows(rows, source)
    shutil.rmtree(folder / str(rows), ignore_errors=True)
    recipe = {
        "sources": [{"path": source.name, "name": "s"}],
        "run": str(rows),
        "encoder": None,
        "model": {"name": "smollm2"},
        "duplicates": {"answers": {"max_per_answer": 10}},
        "contamination": {
            "references": [{"path": str(DATA / "benchmarks" / name)} for name in BENCHMARKS],
            "rules": RULES,
        },
        "splits": {"test": 1000, "validation": 500},
        "balance": {"bins": 12, "target": "temperature", "temperature": 0.5},
    }
    path = folder / f"{rows}.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    started = time.monotonic()
    siftune = Path(sys.executable).with_name("siftune")
    subprocess.run([siftune, "curate", str(path)], check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - started
    return RunFolder.open(folder / str(rows)).manifest, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--sizes", type=int, nargs="*", default=[], help="several sizes, each twice the one before it")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "million")
    options = parser.parse_args()
    folder = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    before: dict[str, float] = {}
    for rows in options.sizes or [options.rows]:
        manifest, seconds = curate(rows, folder)
        size = (folder / f"{rows}.jsonl").stat().st_size / 1e6
        print(f"\n{rows:,} rows, {size:,.0f} MB: {seconds:.0f} s in all\n")
        print("| stage | rows in | rows out | seconds | growth | peak MiB |\n|---|---:|---:|---:|---:|---:|")
        for stage in manifest.stages:
            growth = f"{stage.seconds / before[stage.stage]:.2f} ×" if before.get(stage.stage) else ""
            peak = f"{stage.peak_mb:,.0f}"
            print(f"| {stage.stage} | {stage.rows:,} | {stage.kept:,} | {stage.seconds:.1f} | {growth} | {peak} |")
        before = {stage.stage: stage.seconds for stage in manifest.stages}


if __name__ == "__main__":
    main()
