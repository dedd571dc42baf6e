# ruff: noqa: E402 - the path comes first
"""How fast are near duplicates found, against datasketch and rensa on the same rows, and how does it grow?

    python tests/benchmarks/near.py            the comparison on mix.jsonl.gz, then the growth to 1,000,000 rows
    python tests/benchmarks/near.py --only compare | --only growth [--rows 250000]

Compared are 64,344 dialogues: 3-word shingles, threshold 0.8, 128 permutations, every engine with all cores it uses by
itself. Ours starts from text and ends with pairs whose prompts and whose answers are verified. The peers compare each
dialogue as one text and end unverified (datasketch: candidates of each row; rensa: a flag for each row). Two lanes for
them: from *text*, with shingles made in Python as their documentation shows; and from *hashes*, our 32-bit shingle
hashes handed to them for nothing, their fastest call for such input.
Compilation (cached on disk by numba) is done before the clock starts, and printed. Best of three runs of ours and of
rensa; datasketch runs once.
"""

from __future__ import annotations

import argparse
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np
import polars as pl

from siftune.curation.dedup.leaders import Pairs
from siftune.curation.dedup.minhash import bands as lsh_bands
from siftune.curation.dedup.minhash import jaccard_pairs
from siftune.curation.text.shingle_sets import shingle_sets
from tests.real_data import DATA, read_text
from tests.stopwatch import timed

MIX = DATA / "instructions" / "mix.jsonl.gz"
SHINGLE, PERMUTATIONS, THRESHOLD = 3, 128, 0.8
SIZES = (62_500, 125_000, 250_000, 500_000, 1_000_000)


def sides() -> pl.DataFrame:
    """The prompt and the answer of each row."""
    rows = pl.read_ndjson(read_text(MIX).encode())
    prompt = pl.concat_str("instruction", pl.col("input").fill_null(""), separator="\n")
    return rows.select(prompt.alias("prompt"), pl.col("output").alias("answer"))


def dialogues() -> pl.Series:
    return sides().select(pl.concat_str("prompt", "answer", separator="\n")).to_series()


def ours(rows: pl.DataFrame) -> Pairs:
    return jaccard_pairs([rows], shingle=SHINGLE, permutations=PERMUTATIONS, floor=THRESHOLD)


def best_of(label: str, work: Callable[[], object], *, runs: int = 1) -> tuple[float, float]:
    """The least wall and CPU seconds of some runs, printed and returned."""
    timings = [timed(work) for _ in range(runs)]
    wall, cpu = min(timing.wall for timing in timings), min(timing.cpu for timing in timings)
    print(f"  {label:<60}{wall:8.2f} s{cpu:8.2f} CPU s   {timings[-1].result}", flush=True)
    return wall, cpu


def shingles(text: str) -> list[str]:
    """3-word shingles as the peers' documentation makes them: a list of strings."""
    words = re.findall(r"\w+", text.lower())
    return [" ".join(words[i : i + SHINGLE]) for i in range(max(1, len(words) - SHINGLE + 1))]


def datasketch_text(texts: list[str]) -> str:
    return _datasketch([[word.encode() for word in shingles(text)] for text in texts], {})


def datasketch_hashes(rows: list[list[int]]) -> str:
    return _datasketch(rows, {"hashfunc": lambda value: value})


def _datasketch(rows: list, options: dict) -> str:
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
    sketches = list(MinHash.generator(rows, num_perm=PERMUTATIONS, **options))
    for key, sketch in enumerate(sketches):
        index.insert(key, sketch, check_duplication=False)
    pairs = sum(len(index.query(sketch)) - 1 for sketch in sketches) // 2
    return f"{pairs:,} candidate pairs, unverified"


def rensa_text(texts: list[str], *, rho: bool) -> str:
    from rensa import RMinHash

    make = RMinHash.digest_matrix_from_token_sets_rho if rho else RMinHash.digest_matrix_from_token_sets
    return _rensa_flags(make([shingles(text) for text in texts], PERMUTATIONS, 42))


def rensa_hashes(flat: np.ndarray, offsets: np.ndarray, *, rho: bool) -> str:
    from rensa import RMinHash

    full = RMinHash.digest_matrix_from_flat_token_hashes
    make = RMinHash.digest_matrix_from_flat_token_hashes_rho if rho else full
    return _rensa_flags(make(flat, offsets, PERMUTATIONS, 42))


def _rensa_flags(matrix: object) -> str:
    from rensa import RMinHashLSH

    bands, _ = lsh_bands(THRESHOLD, PERMUTATIONS)
    bands = next(b for b in range(bands, PERMUTATIONS + 1) if PERMUTATIONS % b == 0)  # rensa wants a divisor
    flags = RMinHashLSH(THRESHOLD, PERMUTATIONS, bands).query_duplicate_flags_matrix_one_shot(matrix)
    return f"{sum(flags):,} rows flagged, unverified"


def compare() -> None:
    texts, both = dialogues(), sides()
    print(
        f"{len(texts):,} dialogues, {texts.str.len_bytes().sum() / 1e6:.1f} MB; shingle {SHINGLE}, "
        f"threshold {THRESHOLD}, {PERMUTATIONS} permutations"
    )
    best_of("ours, first call on 100 rows (compiling or loading kernels)", lambda: len(ours(both[:100])))
    ours_wall, ours_cpu = best_of("ours: text to verified pairs", lambda: f"{len(ours(both)):,} verified pairs", runs=3)
    flat, offsets = shingle_sets(texts, shingle=SHINGLE)
    low = flat & np.uint64(0xFFFFFFFF)
    as_text = texts.to_list()
    as_lists = [low[start:end].tolist() for start, end in pairwise(offsets)]
    peers = {
        "rensa": [
            best_of("rensa: text, full set", lambda: rensa_text(as_text, rho=False), runs=3),
            best_of("rensa: text, rho (samples tokens)", lambda: rensa_text(as_text, rho=True), runs=3),
        ],
        "rensa from hashes": [
            best_of("rensa: our hashes for nothing, full set", lambda: rensa_hashes(low, offsets, rho=False), runs=3),
            best_of("rensa: our hashes for nothing, rho", lambda: rensa_hashes(low, offsets, rho=True), runs=3),
        ],
        "datasketch from hashes": [best_of("datasketch: our hashes for nothing", lambda: datasketch_hashes(as_lists))],
        "datasketch": [best_of("datasketch: text", lambda: datasketch_text(as_text))],
    }
    targets = {"datasketch": 30, "rensa": 3}
    for name, lanes in peers.items():
        wall, cpu = (min(lane[kind] for lane in lanes) for kind in (0, 1))
        target = f"target {targets[name]}" if name in targets else "no target: theirs leaves out half of the work"
        by_clock, by_cpu = wall / ours_wall, cpu / ours_cpu
        print(f"  ours against {name:<24}{by_clock:7.1f} x by the clock{by_cpu:7.1f} x by CPU   ({target})")


def write_synthetic_texts(rows: int, folder: Path) -> Path:
    """A parquet file of `rows` texts made of real ones: two dialogues at random, 10 to 60 % of their words replaced by
    words of the corpus; one row in ten is a copy of an earlier one with 3 % replaced. About 140 words a row.
    """
    path = folder / f"{rows}.parquet"
    words = dialogues().str.extract_all(r"\w+")
    flat = words.explode(empty_as_null=False)
    vocabulary = flat.unique(maintain_order=True)
    ids = flat.replace_strict(vocabulary, pl.int_range(len(vocabulary), eager=True)).to_numpy()
    bounds = np.concatenate([[0], np.cumsum(words.list.len().to_numpy(), dtype=np.int64)])
    rng = np.random.default_rng(rows)
    parts = []
    for start in range(0, rows, 20_000):
        texts: list[np.ndarray] = []
        for _ in range(min(20_000, rows - start)):
            if texts and rng.random() < 0.1:
                text, share = texts[rng.integers(len(texts))].copy(), 0.03
            else:
                a, b = rng.integers(len(words), size=2)
                text = np.concatenate([ids[bounds[a] : bounds[a + 1]], ids[bounds[b] : bounds[b + 1]]])
                share = rng.uniform(0.1, 0.6)
            new = np.flatnonzero(rng.random(text.size) < share)
            text[new] = ids[rng.integers(ids.size, size=new.size)]
            texts.append(text)
        row = np.repeat(np.arange(len(texts)), [text.size for text in texts])
        spelled = pl.DataFrame({"row": row, "word": vocabulary.gather(np.concatenate(texts))})
        parts.append(spelled.group_by("row", maintain_order=True).agg(pl.col("word").str.join(" "))["word"])
    pl.DataFrame({"text": pl.concat(parts)}).write_parquet(path)
    return path


def measure_file(path: Path) -> None:
    """In a process of its own: seconds and peak memory for one file, as a run does it, in batches, at floor 0.65."""
    import pyarrow.parquet as pq

    jaccard_pairs(
        [pl.Series(["warm up the kernels", "ünïcode too"])], shingle=SHINGLE, permutations=PERMUTATIONS, floor=0.65
    )
    batches = (pl.from_arrow(batch)["text"] for batch in pq.ParquetFile(path).iter_batches(batch_size=50_000))
    run = timed(lambda: jaccard_pairs(batches, shingle=SHINGLE, permutations=PERMUTATIONS, floor=0.65))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(run.wall, run.cpu, peak, len(run.result))


def growth(sizes: Sequence[int]) -> None:
    print("\nGrowth: text in parquet batches to verified pairs, floor 0.65 (the default), one process for each size")
    print(
        f"  {'rows':>10}{'words':>8}{'seconds':>10}{'x':>7}{'CPU s':>9}{'x':>7}"
        f"{'rows/s':>10}{'pairs':>12}{'peak GiB':>10}"
    )
    last = (float("nan"), float("nan"))
    with tempfile.TemporaryDirectory() as folder:
        for rows in sizes:
            path = write_synthetic_texts(rows, Path(folder))
            words = (
                pl.scan_parquet(path)
                .select(pl.col("text").head(10_000).str.count_matches(r"\w+").mean())
                .collect()
                .item()
            )
            command = [sys.executable, __file__, "--file", str(path)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            seconds, cpu, peak, pairs = (float(value) for value in done.stdout.split())
            print(
                f"  {rows:>10,}{words:>8.0f}{seconds:>10.2f}{seconds / last[0]:>7.2f}{cpu:>9.2f}{cpu / last[1]:>7.2f}"
                f"{rows / seconds:>10,.0f}{int(pairs):>12,}{peak / 2**30:>10.2f}",
                flush=True,
            )
            last = (seconds, cpu)
            path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["compare", "growth"])
    parser.add_argument("--rows", type=int, default=SIZES[-1], help="the largest size of the growth")
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.file:
        measure_file(options.file)
        return
    if options.only != "growth":
        compare()
    if options.only != "compare":
        growth([size for size in SIZES if size <= options.rows])


if __name__ == "__main__":
    main()
