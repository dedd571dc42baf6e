# ruff: noqa: E402 - the path comes first
"""What the published contamination rules find in the labelled sets, and how fast they are.

    python tests/benchmarks/published_rules.py [--speed | --labelled] [--rows 20000]

`--labelled`: the share of the rows of each labelled set (see contamination.py) that a rule matches with the item that
they rephrase; for honest neighbours the share that it matches with any item. Then, of the pairs of
contamination_labelled.jsonl (rows of a mixture beside the benchmark item that the first version matched them with),
how many of each label a rule matches too; all benchmarks are searched, as in a run.

`--speed`: rows of the mixture against all benchmarks, in batches of 5,000, after one batch that is not counted (it
compiles). Seconds by the clock and of all threads; building the index is timed apart.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np
import polars as pl

from siftune.curation.decontamination.published_rules import PublishedRules
from siftune.curation.ingest.references import read_reference
from tests.benchmarks.contamination import labelled_sets
from tests.real_data import DATA, json_rows
from tests.stopwatch import timed

RULES = (
    "gpt3-13gram",
    "palm-8gram",
    "llama2-skipgram",
    "llama3-token-ratio",
    "tulu3-8gram",
    "qwen2-lcs",
    "decon",
)
BATCH = 5_000
LABELS = ("same", "related", "different")


def matches(rule: str, rows: pl.DataFrame, references: pl.DataFrame) -> pl.DataFrame:
    """`row` and `item` (positions) of every match."""
    rules = PublishedRules(references, {rule})
    for start in range(0, rows.height, BATCH):
        rules.read(rows[start : start + BATCH])
    return rules.matches(rows["id"]).select("row", "item").unique()


def all_benchmarks() -> pl.DataFrame:
    folder = DATA / "benchmarks"
    return pl.concat([read_reference(str(path), base=folder) for path in sorted(folder.iterdir())])


def print_labelled() -> None:
    print("| set | rows | " + " | ".join(RULES) + " |")
    print("|---" * (len(RULES) + 2) + "|")
    for data in labelled_sets():
        shares = []
        for rule in RULES:
            pairs = matches(rule, data.rows, data.references)
            truth = data.truth[pairs["row"].to_numpy()]
            right = pairs if data.honest else pairs.filter(pl.Series(truth == pairs["item"].to_numpy()))
            shares.append(right["row"].n_unique() / data.rows.height)
        print(f"| {data.name} | {data.rows.height} | " + " | ".join(f"{share:.3f}" for share in shares) + " |")

    labelled = pl.DataFrame(json_rows(DATA / "pairs" / "contamination_labelled.jsonl"), infer_schema_length=None)
    rows = labelled.select("prompt", "answer", id=pl.format("labelled:{}", pl.int_range(pl.len())))
    references = all_benchmarks()
    position = {name: number for number, name in enumerate(references["reference"])}
    item = np.array([position[name] for name in labelled["reference"]])
    counts = {label: [] for label in LABELS}
    for rule in RULES:
        pairs = matches(rule, rows, references)
        own = pairs.filter(pl.Series(item[pairs["row"].to_numpy()] == pairs["item"].to_numpy()))
        matched = labelled["label"].gather(own["row"])
        for label in LABELS:
            counts[label].append(int((matched == label).sum()))
    for label in LABELS:
        total = int((labelled["label"] == label).sum())
        print(f"| pairs of a mixture: {label} | {total} | " + " | ".join(map(str, counts[label])) + " |")


def print_speed(count: int) -> None:
    references = all_benchmarks()
    mixture = pl.DataFrame(json_rows(DATA / "instructions" / "mix.jsonl.gz"), infer_schema_length=None)
    prompt = pl.concat_str("instruction", pl.lit("\n"), pl.col("input").fill_null("")).str.strip_chars()
    rows = mixture.sample(count, seed=1).select(
        pl.concat_str("source", pl.lit(":"), pl.int_range(pl.len()).cast(pl.String)).alias("id"),
        prompt.alias("prompt"),
        pl.col("output").alias("answer"),
    )
    print("| rule | index, CPU s | rows, s | rows, CPU s | rows/s | rows per CPU s | rows matched |")
    print("|---" * 7 + "|")
    for chosen in ({rule} for rule in RULES), [set(RULES[:5])]:
        for rules in chosen:
            matches(next(iter(rules)), rows[:BATCH], references)
            index = timed(lambda rules=rules: PublishedRules(references, rules))

            def search(published: PublishedRules = index.result) -> pl.DataFrame:
                for start in range(0, rows.height, BATCH):
                    published.read(rows[start : start + BATCH])
                return published.matches(rows["id"])

            run = timed(search)
            name = next(iter(rules)) if len(rules) == 1 else "the first five together"
            matched = run.result["row"].n_unique()
            print(
                f"| {name} | {index.cpu:.2f} | {run.wall:.2f} | {run.cpu:.2f} | {count / run.wall:,.0f} "
                f"| {count / run.cpu:,.0f} | {matched:,} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--labelled", action="store_true")
    parser.add_argument("--rows", type=int, default=20_000)
    options = parser.parse_args()
    if options.labelled or not options.speed:
        print_labelled()
    if options.speed or not options.labelled:
        print_speed(options.rows)


if __name__ == "__main__":
    main()
