# ruff: noqa: E402 - the path comes first
"""Which clustering gives topics that agree with known subjects, and what it costs.

    python tests/benchmarks/topics.py [--rows 4500]

Sets of ../shared/data whose rows have a subject: MATH (7 types) and CLINC150 (150 intents), each cut into as many
topics as it has subjects and into 50. Agreement is the V-measure (Rosenberg and Hirschberg 2007) with the subjects,
stability the adjusted Rand index of two seeds. Seconds are those of all threads. Embeddings come from the default
cache, and go there.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np
import polars as pl
from sklearn.cluster import BisectingKMeans, KMeans, MiniBatchKMeans
from sklearn.metrics import adjusted_rand_score, v_measure_score

from siftune.curation.embeddings.cosine import unit
from siftune.curation.embeddings.store import embedder
from siftune.curation.sampling import shuffle_keys
from siftune.curation.topics.clusters import cluster_rows
from tests.real_data import DATA, read_text
from tests.stopwatch import timed


def labelled_sets(most: int) -> Iterator[tuple[str, list[str], list[str]]]:
    """Name, texts and subjects of each set; at most so many rows, spread over the file."""
    math = json.loads("[" + read_text(DATA / "benchmarks" / "math_test.json.gz").strip().replace("}\n{", "},\n{") + "]")
    clinc = json.loads(read_text(DATA / "pairs" / "clinc150.json.gz"))
    utterances = [row for part in clinc.values() for row in part if row[1] != "oos"]
    yield "MATH", *map(list, zip(*[(row["problem"], row["type"]) for row in _spread(math, most)], strict=True))
    yield "CLINC150", *map(list, zip(*_spread(utterances, most), strict=True))


def _spread(rows: list, most: int) -> list:
    return rows[:: max(1, len(rows) // most)][:most]


def labels(method: str, vectors: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The topic of each row by one of METHODS."""
    if method == "faiss (ours)":
        keys = shuffle_keys(pl.Series([str(row) for row in range(len(vectors))]), seed=0, purpose="topics")
        return cluster_rows(vectors, count, keys=keys, seed=seed)
    model = METHODS[method]
    return model(count, n_init=1, random_state=seed).fit_predict(unit(vectors))


METHODS = {
    "faiss (ours)": None,
    "KMeans": KMeans,
    "MiniBatchKMeans": MiniBatchKMeans,
    "BisectingKMeans": BisectingKMeans,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4500)
    print("set, subjects, topics, method: agreement (two seeds), stability, seconds")
    for name, texts, subjects in labelled_sets(parser.parse_args().rows):
        vectors = embedder("auto").embed(texts)
        for count in sorted({len(set(subjects)), 50}):
            for method in METHODS:
                first, second = (timed(partial(labels, method, vectors, count, seed)) for seed in (0, 1))
                scores = [v_measure_score(subjects, one.result) for one in (first, second)]
                stability = adjusted_rand_score(first.result, second.result)
                line = f"{scores[0]:.3f} {scores[1]:.3f}, {stability:.2f}, {first.cpu:.1f}"
                print(f"{name}, {len(set(subjects))}, {count}, {method}: {line}", flush=True)


if __name__ == "__main__":
    main()
