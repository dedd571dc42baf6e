# ruff: noqa: E402 - the path comes first
"""How long does a whole curation take, stage by stage, and how does it grow? From JSON Lines to the curated set.

    python tests/benchmarks/million.py [--rows 1000000] [--sizes 250000 500000 1000000] [--folder runs/million]

Rows are instructions and answers of 20 to 60 words each, cut from the word stream of mix.jsonl.gz with a tenth to six
tenths of the words replaced by others of it; one row in ten copies an earlier one and replaces 3 % of its words. About
480 MB for a million. Curated without an encoder: exact, near, answers, contamination by published rules against six
benchmarks, splits with their certificate, balance. Each size runs in a process of its own; files of a size that is
there are not made again, runs are. Printed: seconds and peak memory of each stage, and the growth from size to size.

With --map the run gets topics and a map too, by sums of random word vectors, since no encoder reads a million rows in
minutes. `tests/benchmarks/app.py` measures the pages on such a run.
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

from siftune.curation import schema
from siftune.curation.atomic_files import write_parquet
from siftune.curation.corpus import batches
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.manifest import Manifest
from siftune.curation.sampling import shuffle_keys
from siftune.curation.topics.clusters import cluster_rows, topic_count
from siftune.curation.topics.diversity import second_moment
from siftune.curation.topics.names import topic_names
from siftune.curation.topics.projection import principal_components
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


def add_map(run: RunFolder) -> None:
    """Give a run topics and a map, as a recipe with `topics: {}` would, from sums of random word vectors."""
    index = pl.read_parquet(run.file("index"), columns=["id"])
    vectors = np.concatenate([_word_sums(batch["prompt"]) for batch in batches(run.texts, ["prompt"])])
    keys = shuffle_keys(index["id"], seed=0, purpose="topics")
    topic = cluster_rows(vectors, topic_count(len(vectors), None), keys=keys, seed=0)
    names = pl.Series(
        "topic", topic_names((batch["prompt"] for batch in batches(run.texts, ["prompt"])), topic, keys=keys)
    )
    points, share = principal_components(vectors, *second_moment(vectors))
    frame = index.with_columns(topic=names.gather(topic), x=pl.Series(points[:, 0]), y=pl.Series(points[:, 1]))
    measured = schema.conform(frame, schema.ROW_TOPICS)
    path = run.measure_path("topics", "benchmark")
    write_parquet(measured, path, checked=True)
    rows = run.rows().drop("topic").join(measured.select("id", "topic"), on="id", how="left", maintain_order="left")
    write_parquet(schema.conform(rows, schema.ROWS), run.rows_path, checked=True)
    manifest = run.manifest
    manifest.files["topics"] = str(path.relative_to(run.path))
    notes = {"topics": str(len(names)), "projection": f"principal components ({share:.1%} of the variance)"}
    manifest.notes["topics"] = notes
    manifest.write(run.manifest_path)


def _word_sums(texts: pl.Series) -> np.ndarray:
    """The sum of the words' vectors for each text, float32 [n, 32]; a word's vector is drawn by its hash."""
    words = pl.DataFrame({"text": texts}).with_row_index("row").select("row", pl.col("text").str.extract_all(r"\w+"))
    exploded = words.explode("text")
    table = np.random.default_rng(0).standard_normal((4096, 32), dtype=np.float32)
    drawn = exploded.select(pl.col("text").hash(7) % len(table)).to_series().to_numpy()
    starts = np.searchsorted(exploded["row"].to_numpy(), np.arange(len(texts)))
    return np.add.reduceat(table[drawn], starts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--sizes", type=int, nargs="*", default=[], help="several sizes, each twice the one before it")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "million")
    parser.add_argument("--map", action="store_true", help="give the runs topics and a map too")
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
        if options.map:
            add_map(RunFolder.open(folder / str(rows)))
        before = {stage.stage: stage.seconds for stage in manifest.stages}


if __name__ == "__main__":
    main()
