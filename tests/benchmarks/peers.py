# ruff: noqa: E402 - the path comes first
"""siftune against tools with an environment of their own, on the same rows, alternating: time and what stays.

    python tests/benchmarks/peers.py [--rows 64344] [--repetitions 3] [--only datatrove text-dedup semhash]

Near duplicates, of the dialogues of mix.jsonl.gz as one text each: datatrove's four MinHash steps with its local
executor and the buckets of its example, and text-dedup's MinHash script; 3-word shingles, threshold 0.8. Semantic
duplicates: semhash on the embeddings of the prompts, the same on both sides, threshold 0.9; only search and decision
are timed. `near.py` has datasketch and rensa.

Ours goes from text (or vectors) to the list of rows that stay, in a process of its own as the peers do; imports and
compiling are not timed on either side, except that text-dedup is timed as a whole process, which is how it is used.
*Without a kept match*: dropped rows that no row that stays resembles at the threshold. *Duplicates left*: pairs of rows
that stay and do. Both are counted by ours, of pairs from a search with a lower floor.

The environments are made once, in FOLDER (default: runs/peers), which takes a package index and some minutes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np
import polars as pl

from siftune.curation.dedup.embedding_pairs import cosine_pairs
from siftune.curation.dedup.leaders import Pairs, leaders
from siftune.curation.dedup.minhash import jaccard_pairs
from tests.benchmarks.near import dialogues, sides
from tests.benchmarks.peer_environment.run_peer import PERMUTATIONS, SHINGLE, THRESHOLD

RUN_PEER = Path(__file__).parent / "peer_environment" / "run_peer.py"
#: What is installed for each peer.
PACKAGES = {
    "datatrove": ["datatrove[io,processing]", "nltk", "spacy"],
    "text-dedup": ["text-dedup"],
    "semhash": ["semhash"],
}
COSINE = 0.9
#: Runs a command and prints the peak KiB of its largest process: a process that is started from a large one counts the
#: memory of that one as its own.
MEASURE = (
    "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
)
#: How far below the threshold pairs are searched for that are counted.
MARGIN = 0.1


def pairs_of(rows: Path, *, semantic: bool, floor: float) -> tuple[int, Pairs]:
    """The number of rows, and our verified pairs."""
    if semantic:
        vectors = np.load(rows.with_name("vectors.npy"))
        return len(vectors), cosine_pairs(vectors, floor=floor)
    texts = pl.read_parquet(rows)["text"]
    return len(texts), jaccard_pairs([texts], shingle=SHINGLE, permutations=PERMUTATIONS, floor=floor)


def ours(rows: Path, folder: Path, *, semantic: bool) -> None:
    """In a process of its own: the rows that stay, and the seconds it took."""
    threshold = COSINE if semantic else THRESHOLD
    if not semantic:  # compiled kernels are read from disk
        jaccard_pairs(
            [pl.Series(["one text", "two texts"])], shingle=SHINGLE, permutations=PERMUTATIONS, floor=threshold
        )
    start = time.perf_counter()
    count, pairs = pairs_of(rows, semantic=semantic, floor=threshold)
    kept = np.flatnonzero(leaders(count, np.arange(count), pairs, threshold=threshold).kept)
    seconds = time.perf_counter() - start
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps({"seconds": seconds, "kept": kept.tolist()}))


def interpreter(peer: str, folder: Path) -> Path:
    """The Python of the peer's environment, which is made where it is missing."""
    environment = folder / "environments" / peer
    python = environment / "bin" / "python"
    if not (environment / "made").exists():
        print(f"installing {peer} …", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, *PACKAGES[peer]], check=True)
        (environment / "made").touch()
    return python


def run(command: list[str], folder: Path) -> tuple[float, float, np.ndarray]:
    """Seconds, the peak MiB of its largest process, and the ids that stay."""
    measured = subprocess.run([sys.executable, "-c", MEASURE, *command], capture_output=True, text=True, check=True)
    peak = int(measured.stdout.split()[-1]) / 1024
    result = json.loads((folder / "result.json").read_text())
    return result["seconds"], peak, np.array(result["kept"])


def faults(kept: np.ndarray, count: int, pairs: Pairs, threshold: float) -> tuple[int, int, int]:
    """How many rows are dropped, dropped rows without a match that stays, pairs of rows that stay."""
    stays = np.zeros(count, np.bool_)
    stays[kept] = True
    similar = pairs.score >= threshold
    a, b = pairs.a[similar], pairs.b[similar]
    matched = np.zeros(count, np.bool_)
    matched[a[stays[b]]] = True
    matched[b[stays[a]]] = True
    return count - len(kept), int((~stays & ~matched).sum()), int((stays[a] & stays[b]).sum())


def compare(peer: str, folder: Path, *, count: int, repetitions: int) -> None:
    """Ours and the peer's, turn by turn, and a line for each."""
    semantic, python = peer == "semhash", interpreter(peer, folder)
    rows = folder / ("rows.jsonl" if peer == "datatrove" else "rows.parquet")
    flag = ["--semantic"] if semantic else []
    timings: dict[str, list[tuple[float, float, np.ndarray]]] = {"siftune": [], peer: []}
    for repetition in range(repetitions):
        for name in timings:
            out = folder / "results" / f"{peer}-{repetition}-{name}"
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir(parents=True)
            own = [sys.executable, __file__, "--ours", str(rows.with_suffix(".parquet")), str(out), *flag]
            theirs = [str(python), str(RUN_PEER), peer, str(rows), str(out)]
            timings[name].append(run(own if name == "siftune" else theirs, out))
    threshold = COSINE if semantic else THRESHOLD
    _, pairs = pairs_of(rows.with_suffix(".parquet"), semantic=semantic, floor=threshold - MARGIN)
    medians = {name: statistics.median(timing[0] for timing in runs) for name, runs in timings.items()}
    print(f"\n{'semantic' if semantic else 'near'} duplicates of {count:,} rows, medians of {repetitions} runs\n")
    print("| tool | seconds | ratio | peak MiB | dropped | without a kept match | duplicates left |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, runs in timings.items():
        dropped, unmatched, left = faults(runs[0][2], count, pairs, threshold)
        peak = max(timing[1] for timing in runs)
        print(
            f"| {name} | {medians[name]:.2f} | {medians[name] / medians['siftune']:.1f} | {peak:,.0f} | {dropped:,} | "
            f"{unmatched:,} | {left:,} |",
            flush=True,
        )


def write_rows(folder: Path, count: int, *, semantic: bool) -> None:
    """The rows as each tool reads them."""
    texts = dialogues().head(count)
    frame = pl.DataFrame({"id": pl.int_range(len(texts), eager=True), "text": texts})
    frame.write_parquet(folder / "rows.parquet")
    frame.with_columns(pl.col("id").cast(pl.String)).write_ndjson(folder / "rows.jsonl")
    if semantic:
        from siftune.curation.embeddings.store import EmbeddingStore, load

        vectors = EmbeddingStore(load("auto")).embed([sides()["prompt"].head(count)])
        np.save(folder / "vectors.npy", vectors.astype(np.float32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "peers")
    parser.add_argument("--rows", type=int, default=64_344)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=PACKAGES, default=list(PACKAGES))
    parser.add_argument("--ours", nargs=2, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--semantic", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ours:
        ours(*options.ours, semantic=options.semantic)
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    write_rows(options.folder, options.rows, semantic="semhash" in options.only)
    for peer in options.only:
        compare(peer, options.folder, count=options.rows, repetitions=options.repetitions)


if __name__ == "__main__":
    main()
