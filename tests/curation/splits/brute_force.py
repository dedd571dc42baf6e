"""Check the certificate of a run folder without any code of the project: plain Python sets over what was written.

    python tests/curation/splits/brute_force.py RUN

Reads the arms, the held-out sets and the compared texts of the run, and compares every held-out row with every row of
every arm (and the two held-out sets with each other) by equality and by Jaccard similarity of word shingles.
"""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow.parquet as pq

UNSPACED = (
    "[\u2e80-\u2fdf\u3005\u3007\u3021-\u3029\u3038-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]"
)


def shingles(text: str, size: int) -> frozenset[tuple[str, ...]]:
    """Runs of `size` lower-case words; one run of all words when there are fewer."""
    plain = unicodedata.normalize("NFKC", text).lower()
    words = re.findall(rf"{UNSPACED}|(?:(?!{UNSPACED})\w)+", plain)
    width = min(size, len(words))
    return (
        frozenset(tuple(words[start : start + width]) for start in range(len(words) - width + 1))
        if words
        else frozenset()
    )


def jaccard(one: str, two: str, size: int) -> float:
    """The Jaccard similarity of the shingles of two texts; 0 for a text without any."""
    a, b = shingles(one, size), shingles(two, size)
    return len(a & b) / len(a | b) if a and b else 0.0


def normal(text: str) -> str:
    """The exact key: NFC, white space made one space."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def similar(
    left: dict[str, str], right: dict[str, str], *, size: int, threshold: float
) -> list[tuple[str, str, float]]:
    """Pairs of ids at or above the threshold, by equality (1.0) or by Jaccard similarity."""
    holders, keys = defaultdict(list), defaultdict(list)
    sets = {name: shingles(text, size) for name, text in right.items()}
    for name, text in right.items():
        keys[normal(text)].append(name)
        for shingle in sets[name]:
            holders[shingle].append(name)
    pairs = []
    for name, text in left.items():
        own = shingles(text, size)
        shared = Counter(other for shingle in own for other in holders.get(shingle, ()))
        scores = {other: count / (len(own) + len(sets[other]) - count) for other, count in shared.items()}
        scores |= dict.fromkeys(keys[normal(text)] if normal(text) else (), 1.0)
        pairs += [(name, other, score) for other, score in scores.items() if score >= threshold]
    return pairs


def leaks(run: Path) -> list[tuple[str, str, float]]:
    """All pairs across the splits of a run at or above its own leak threshold."""
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    threshold = manifest["certificate"]["thresholds"]["near"]
    size = int(re.search(r"(\d+)-word", manifest["certificate"]["method"])[1])
    table = pq.read_table(run / manifest["files"]["texts"], columns=["id", "core", "answer"]).to_pydict()
    dialogue = "leaks: dialogue" in manifest["recipe"]
    texts = {
        name: f"{core}\n{answer}" if dialogue else core
        for name, core, answer in zip(table["id"], table["core"], table["answer"], strict=True)
    }
    held, trained = {}, {}
    for file in sorted((run / "heldout").glob("*.parquet")):
        held[file.stem] = {name: texts[name] for name in pq.read_table(file, columns=["id"])["id"].to_pylist()}
    for file in sorted((run / "arms").glob("*.parquet")):
        trained |= {name: texts[name] for name in pq.read_table(file, columns=["id"])["id"].to_pylist()}
    pairs = [pair for part in held.values() for pair in similar(trained, part, size=size, threshold=threshold)]
    return pairs + similar(held.get("validation", {}), held.get("test", {}), size=size, threshold=threshold)


if __name__ == "__main__":
    pairs = leaks(Path(sys.argv[1]))
    sys.stdout.write(f"{len(pairs)} pairs across splits at or above the threshold\n")
    sys.stdout.writelines(f"{score:.3f}  {one}  {two}\n" for one, two, score in pairs[:20])
    sys.exit(bool(pairs))
