# ruff: noqa: E402 - the path comes first
"""What preselection keeps on real sets: the pairs of the semantic stage as it ships against those of every row.

    python tests/benchmarks/preselect.py [--rows 5000] [FILE ...]

FILES are paths below ../shared/data; by default all instruction sets, and the sets of pairs made by paraphrasing. A row
is every string in it, which keeps two members of a pair apart only by their own words. Rows are drawn at random.
Embeddings come from the default cache, and go there.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np
import polars as pl

from siftune.curation.dedup import embedding_pairs
from siftune.curation.embeddings.store import EmbeddingStore, load
from siftune.curation.recipe.sections import Semantic
from tests.real_data import DATA, json_rows, read_text

PARAPHRASES = ("mbpp_semantic_duplicates.csv", "clinc150.json.gz", "CodeAlpacaDB.jsonl")


def strings(value: Any) -> list[str]:
    """Every string in a JSON value, in order."""
    if isinstance(value, str):
        return [value]
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for part in inner for text in strings(part)]


def read_distinct(path: Path) -> list[str]:
    """Distinct rows of a file as texts."""
    if path.suffix == ".csv":
        rows: list[Any] = [row["prompt"] for row in csv.DictReader(io.StringIO(read_text(path)))]
    elif ".jsonl" in path.name:
        rows = json_rows(path)
    else:
        document = json.loads(read_text(path))
        rows = [row[0] for part in document.values() for row in part] if "clinc" in path.name else document
    return list(dict.fromkeys("\n".join(strings(row)) for row in rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("files", nargs="*", type=Path)
    options = parser.parse_args()
    files = options.files or [
        *(path.relative_to(DATA) for path in sorted((DATA / "instructions").iterdir())),
        *(Path("pairs") / name for name in PARAPHRASES),
    ]
    embed, defaults = EmbeddingStore(load("auto")).embed, Semantic()
    print("| set | rows | encoded | pairs | kept | kept at the threshold | estimated |\n" + "|---" * 7 + "|")
    for file in files:
        texts = read_distinct(DATA / file)
        sample = pl.Series(texts).gather(np.random.default_rng(0).permutation(len(texts))[: options.rows])
        all_pairs = embedding_pairs.cosine_pairs(embed([sample]), floor=defaults.rows)
        pairs = embedding_pairs.preselected_pairs(sample, embed, floor=defaults.rows)
        encoded = int(pairs.method.split()[2]) if "among" in pairs.method else len(sample)
        shares = [
            np.count_nonzero(pairs.score >= threshold) / max(1, int(np.count_nonzero(all_pairs.score >= threshold)))
            for threshold in (defaults.rows, defaults.threshold)
        ]
        kept = " | ".join(f"{share:.4f}" if len(all_pairs) else "–" for share in shares)
        print(f"| {file} | {len(sample)} | {encoded} | {len(all_pairs)} | {kept} | {pairs.recall:.4f} |", flush=True)


if __name__ == "__main__":
    main()
