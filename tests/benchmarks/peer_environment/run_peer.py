"""What `peers.py` runs in the environment of each peer: its documented calls on the rows of a file, one run.

    python run_peer.py PEER INPUT FOLDER

INPUT is JSON Lines or parquet with `id` (0, 1, …) and `text`, for semhash with `vectors.npy` beside it. Writes
FOLDER/result.json: `seconds` from the rows in memory or on disk to the list of rows that stay, and `kept`, their ids.
Nothing of siftune is imported here.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

THRESHOLD, SHINGLE, PERMUTATIONS = 0.8, 3, 128
#: datatrove has no threshold: the buckets of its example, which find half of the pairs with a similarity of 0.72.
BUCKETS, BUCKET_HASHES = 14, 8


def datatrove(rows: Path, folder: Path) -> tuple[float, list[int]]:
    """The four steps of its example, with the local executor on two workers, and a filter that writes JSON Lines."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
    )
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers.jsonl import JsonlWriter
    from datatrove.utils.hashing import HashConfig

    hashes = HashConfig(precision=64)
    config = MinhashConfig(n_grams=SHINGLE, num_buckets=BUCKETS, hashes_per_bucket=BUCKET_HASHES, hash_config=hashes)
    reader = JsonlReader(str(rows.parent), glob_pattern=rows.name)
    parts = {name: str(folder / name) for name in ("signatures", "buckets", "remove", "kept")}
    steps = [
        ([reader, MinhashDedupSignature(parts["signatures"], config=config)], 1),
        ([MinhashDedupBuckets(parts["signatures"], parts["buckets"], config=config)], BUCKETS),
        ([MinhashDedupCluster(parts["buckets"], parts["remove"], config=config)], 1),
        ([reader, MinhashDedupFilter(parts["remove"]), JsonlWriter(parts["kept"], compression=None)], 1),
    ]
    start = time.perf_counter()
    for number, (pipeline, tasks) in enumerate(steps):
        logs = str(folder / f"logs{number}")
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=min(2, tasks), logging_dir=logs).run()
    seconds = time.perf_counter() - start
    lines = (line for file in Path(parts["kept"]).iterdir() for line in file.read_text("utf-8").split("\n"))
    return seconds, [int(json.loads(line)["id"]) for line in lines if line]


def text_dedup(rows: Path, folder: Path) -> tuple[float, list[int]]:
    """Its MinHash script, timed as a whole process; short texts are not removed, as they are by default."""
    options = {
        "path": "parquet",
        "data_files": rows,
        "split": "train",
        "cache_dir": folder / "cache",
        "output": folder / "kept",
        "column": "text",
        "ngram": SHINGLE,
        "min_length": 1,
        "num_perm": PERMUTATIONS,
        "threshold": THRESHOLD,
        "hash_func": "xxh3",
        "batch_size": 10_000,
    }
    given = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "text_dedup.minhash", *given], cwd=folder, check=True)
    seconds = time.perf_counter() - start
    import datasets

    return seconds, list(datasets.load_from_disk(str(folder / "kept"))["id"])


def semhash(rows: Path, folder: Path) -> tuple[float, list[int]]:
    """Its search over the vectors that it is given: an index with its default backend, then self-deduplication."""
    import numpy as np
    from semhash import SemHash

    vectors = np.load(rows.with_name("vectors.npy"))
    records = [{"text": str(number)} for number in range(len(vectors))]

    class Given:
        """An encoder that hands out the vectors of the numbers that it is asked for."""

        def encode(self, inputs: list[str], **_: object) -> np.ndarray:
            return vectors[[int(text) for text in inputs]]

    start = time.perf_counter()
    index = SemHash.from_records(records=records, columns=["text"], model=Given())
    selected = index.self_deduplicate(threshold=0.9).selected
    return time.perf_counter() - start, [int(record["text"]) for record in selected]


def main() -> None:
    """Run one peer once."""
    peer, rows, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    seconds, kept = {"datatrove": datatrove, "text-dedup": text_dedup, "semhash": semhash}[peer](rows, folder)
    (folder / "result.json").write_text(json.dumps({"seconds": seconds, "kept": kept}))


if __name__ == "__main__":
    main()
