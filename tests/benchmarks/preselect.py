"""What preselection keeps on real sets: the pairs of the semantic stage as it ships against those of every row.

    python tests/benchmarks/preselect.py [--rows 5000] [FILE ...]

FILES are paths below ../shared/data; by default all instruction sets, and the sets of pairs made by paraphrasing. A row
is every string in it, which keeps two members of a pair apart only by their own words. Rows are drawn at random.
Embeddings come from the default cache, and go there.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from siftune.curation.dedup import embedding_pairs
from siftune.curation.embeddings.store import EmbeddingStore, load
from siftune.curation.recipe.sections import Semantic

DATA = Path(__file__).parents[3] / "shared" / "data"
PARAPHRASES = ("mbpp_semantic_duplicates.csv", "clinc150.json.gz", "CodeAlpacaDB.jsonl")


def strings(value: Any) -> list[str]:
    """Every string in a JSON value, in order."""
    if isinstance(value, str):
        return [value]
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for part in inner for text in strings(part)]


def read(path: Path) -> list[str]:
    """Distinct rows of a file as texts."""
    raw = path.read_bytes()
    content = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    if path.suffix == ".csv":
        rows: list[Any] = [row["prompt"] for row in csv.DictReader(io.StringIO(content))]
    elif ".jsonl" in path.name:
        rows = [json.loads(line) for line in content.split("\n") if line.strip()]
    else:
        document = json.loads(content)
        rows = [row[0] for part in document.values() for row in part] if "clinc" in path.name else document
    return list(dict.fromkeys("\n".join(strings(row)) for row in rows))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("files", nargs="*", type=Path)
    given = parser.parse_args()
    files = given.files or [
        *(path.relative_to(DATA) for path in sorted((DATA / "instructions").iterdir())),
        *(Path("pairs") / name for name in PARAPHRASES),
    ]
    embed, defaults = EmbeddingStore(load("auto")).embed, Semantic()
    print("| set | rows | encoded | pairs | kept | kept at the threshold | estimated |\n" + "|---" * 7 + "|")
    for file in files:
        texts = read(DATA / file)
        some = pl.Series(texts).gather(np.random.default_rng(0).permutation(len(texts))[: given.rows])
        truth = embedding_pairs.cosine_pairs(embed([some]), floor=defaults.floor)
        found = embedding_pairs.preselected_pairs(some, embed, floor=defaults.floor)
        encoded = int(found.method.split()[2]) if "among" in found.method else len(some)
        shares = [
            np.count_nonzero(found.score >= least) / max(1, int(np.count_nonzero(truth.score >= least)))
            for least in (defaults.floor, defaults.threshold)
        ]
        kept = " | ".join(f"{share:.4f}" if len(truth) else "–" for share in shares)
        print(f"| {file} | {len(some)} | {encoded} | {len(truth)} | {kept} | {found.recall:.4f} |", flush=True)


if __name__ == "__main__":
    main()
